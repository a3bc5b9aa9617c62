//! Every tool there is, one file each, in the order that clients see.

mod access_explain;
mod access_set;
mod app_apply;
mod app_describe;
mod app_plan;
mod app_rollback;
mod auth_configure;
mod auth_user_set;
mod auth_users;
mod client_code;
mod code;
mod confirm;
mod db_execute;
mod db_load;
mod db_migrate;
mod db_query;
mod domain_check;
mod domain_set;
mod env_branch;
mod env_create;
mod env_delete;
mod env_list;
mod env_merge;
mod env_restore;
mod env_snapshot;
mod file_edit;
mod file_list;
mod file_read;
mod file_search;
mod file_write;
mod files;
mod function_deploy;
mod function_invoke;
mod logs_query;
mod manifest;
mod outcome;
mod parts;
mod preview_open;
mod resource_delete;
mod secret_set;
mod service_deploy;
mod shell_run;
mod site_deploy;
mod skill_read;
mod storage_bucket;
mod storage_get;
mod storage_list;
mod storage_put;
mod storage_sign;
mod usage_query;
mod whole_text;
mod workspace_restore;
mod workspace_snapshot;

use schemars::{Schema, SchemaGenerator, json_schema};
use tool::{Registry, registry};

use crate::platform::Platform;

/// The product's tools.
#[must_use]
pub fn registry() -> Registry<Platform> {
    registry![
        app_describe::AppDescribe,
        app_plan::AppPlan,
        app_apply::AppApply,
        app_rollback::AppRollback,
        env_list::EnvList,
        env_create::EnvCreate,
        env_delete::EnvDelete,
        env_branch::EnvBranch,
        env_merge::EnvMerge,
        env_snapshot::EnvSnapshot,
        env_restore::EnvRestore,
        db_query::DbQuery,
        db_execute::DbExecute,
        db_migrate::DbMigrate,
        db_load::DbLoad,
        access_set::AccessSet,
        access_explain::AccessExplain,
        auth_configure::AuthConfigure,
        auth_users::AuthUsers,
        auth_user_set::AuthUserSet,
        storage_bucket::StorageBucket,
        storage_list::StorageList,
        storage_get::StorageGet,
        storage_put::StoragePut,
        storage_sign::StorageSign,
        function_deploy::FunctionDeploy,
        function_invoke::FunctionInvoke,
        service_deploy::ServiceDeploy,
        site_deploy::SiteDeploy,
        domain_set::DomainSet,
        domain_check::DomainCheck,
        secret_set::SecretSet,
        resource_delete::ResourceDelete,
        logs_query::LogsQuery,
        usage_query::UsageQuery,
        client_code::ClientCode,
        skill_read::SkillRead,
        shell_run::ShellRun,
        file_read::FileRead,
        file_write::FileWrite,
        file_edit::FileEdit,
        file_list::FileList,
        file_search::FileSearch,
        preview_open::PreviewOpen,
        workspace_snapshot::WorkspaceSnapshot,
        workspace_restore::WorkspaceRestore,
    ]
}

/// Values for a statement's parameters.
fn params(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array" })
}

/// The schema of rows: what a database holds is null, a number, a text, or a blob.
fn rows(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "array", "items": { "anyOf": [
            { "type": "null" },
            { "type": "number" },
            { "type": "string" },
            {
                "type": "object",
                "properties": { "base64": { "type": "string" } },
                "required": ["base64"],
                "additionalProperties": false,
            },
        ] } },
    })
}

#[cfg(test)]
mod tests;
