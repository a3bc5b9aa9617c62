//! The skills as MCP serves them: by the skills extension (SEP-2640), as resources, and as prompts.

use std::collections::BTreeSet;

use rmcp::ServerHandler;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
    DIRECTORY_MIME_TYPE, ErrorData, GetPromptRequestParams, GetPromptResponse, GetPromptResult,
    GetSkillRequestParams, GetSkillResult, ListPromptsResult, ListResourcesResult, ListSkillsResult,
    PaginatedRequestParams, Prompt, PromptMessage, ReadResourceDirectoryRequestParams,
    ReadResourceDirectoryResult, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    Resource, ResourceContents, Role, ServerCapabilities, ServerConfig, Skill, SkillFrontmatter,
    SkillResource, SkillResources,
};

use super::handler::{Answer, Context, LIST_TTL_MS, unknown};
use crate::skills::{self, File};

/// What stands before the path of a skill's file.
const SCHEME: &str = "skill://";

/// What skills are written in.
const MARKDOWN: &str = "text/markdown";

/// What the product serves beside its tools.
pub(super) struct Skills {
    entries: Vec<Skill>,
    files: Vec<Resource>,
    /// Directories, each with what is in it.
    directories: Vec<(String, Vec<Resource>)>,
    prompts: Vec<Prompt>,
}

impl Skills {
    /// The skills that are part of the program, with the digests of their files.
    pub(super) fn new() -> Self {
        let files: Vec<Resource> = skills::FILES.iter().map(resource).collect();
        let paths: BTreeSet<&str> = skills::FILES.iter().flat_map(|file| above(file.path)).collect();
        let directories = paths.iter().map(|path| {
            let within = |other: &&str| other.rsplit_once('/').is_some_and(|(parent, _)| parent == *path);
            let inner = paths.iter().copied().filter(within).map(directory);
            let here = skills::FILES.iter().filter(|file| within(&file.path)).map(resource);
            (uri(path), here.chain(inner).collect())
        });
        let prompt = |skill: &skills::Skill| {
            Prompt::new(skill.name, Some(skill.description), None).with_title(title(skill.name))
        };
        Self {
            entries: skills::all().iter().map(entry).collect(),
            directories: directories.collect(),
            prompts: skills::all().iter().map(prompt).collect(),
            files,
        }
    }
}

fn uri(path: &str) -> String {
    format!("{SCHEME}{path}")
}

/// The directories that a file is in.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

/// A name as people write it: `start-here` is `Start here`.
fn title(name: &str) -> String {
    let words = name.replace('-', " ");
    let first = words.chars().next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + words.get(1..).unwrap_or_default()
}

fn entry(skill: &skills::Skill) -> Skill {
    let files =
        skill.files.iter().map(|file| SkillResource::from_bytes(uri(file.path), file.text.as_bytes()));
    let frontmatter = SkillFrontmatter::new(skill.name, skill.description);
    let main = uri(&format!("{}/SKILL.md", skill.name));
    Skill::new(main, frontmatter, SkillResources::Files(files.collect()))
}

fn resource(file: &File) -> Resource {
    let skill = skills::all().iter().find(|skill| skill.files.first() == Some(file));
    let last = file.path.rsplit('/').next().unwrap_or(file.path);
    let resource = Resource::new(uri(file.path), skill.map_or(last, |skill| skill.name))
        .with_mime_type(MARKDOWN)
        .with_size(file.text.len() as u64);
    match skill {
        Some(skill) => resource.with_description(skill.description),
        None => resource,
    }
}

fn directory(path: &str) -> Resource {
    let name = path.rsplit('/').next().unwrap_or(path);
    Resource::new(uri(path), name).with_mime_type(DIRECTORY_MIME_TYPE)
}

/// Lists are short enough for one page.
fn no_cursor(cursor: Option<&String>) -> Answer<()> {
    match cursor {
        None => Ok(()),
        Some(_) => Err(ErrorData::invalid_params("there is no such cursor", None)),
    }
}

fn whole(request: Option<&PaginatedRequestParams>) -> Answer<()> {
    no_cursor(request.and_then(|request| request.cursor.as_ref()))
}

/// What a client sent, short enough to be said back.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The skills are the same for everybody; who may ask at all is decided before.
macro_rules! cached {
    ($result:expr) => {{
        let mut result = $result;
        result.ttl_ms = Some(LIST_TTL_MS);
        result.cache_scope = Some(CacheScope::Public);
        result
    }};
}

impl ServerHandler for Skills {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_prompts().enable_resources();
        ServerConfig::new(capabilities.enable_skills_with_directory_read().build())
    }

    async fn call_tool(&self, request: CallToolRequestParams, _: Context) -> Answer<CallToolResponse> {
        Err(ErrorData::invalid_params(format!("there is no tool {:?}", shown(&request.name)), None))
    }

    async fn complete(&self, _: CompleteRequestParams, _: Context) -> Answer<CompleteResult> {
        Err(unknown("completion/complete"))
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Answer<ListPromptsResult> {
        whole(request.as_ref())?;
        Ok(cached!(ListPromptsResult::with_all_items(self.prompts.clone())))
    }

    async fn get_prompt(&self, request: GetPromptRequestParams, _: Context) -> Answer<GetPromptResponse> {
        let skill = skills::named(&request.name);
        let skill = skill.ok_or_else(|| {
            ErrorData::invalid_params(format!("there is no prompt {:?}", shown(&request.name)), None)
        })?;
        if let Some(name) = request.arguments.iter().flat_map(|arguments| arguments.keys()).next() {
            let message = format!("the prompt takes no argument {:?}", shown(name));
            return Err(ErrorData::invalid_params(message, None));
        }
        let message = PromptMessage::new_text(Role::User, skill.body);
        Ok(GetPromptResult::new(vec![message]).with_description(skill.description).into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Answer<ListResourcesResult> {
        whole(request.as_ref())?;
        Ok(cached!(ListResourcesResult::with_all_items(self.files.clone())))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: Context,
    ) -> Answer<ReadResourceResponse> {
        let file = request
            .uri
            .strip_prefix(SCHEME)
            .and_then(|path| skills::FILES.iter().find(|file| file.path == path))
            .ok_or_else(|| {
                ErrorData::resource_not_found(format!("there is no resource {:?}", shown(&request.uri)), None)
            })?;
        let contents = ResourceContents::text(file.text, request.uri).with_mime_type(MARKDOWN);
        Ok(cached!(ReadResourceResult::new(vec![contents])).into())
    }

    async fn list_skills(
        &self,
        request: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Answer<ListSkillsResult> {
        whole(request.as_ref())?;
        Ok(cached!(ListSkillsResult::with_all_items(self.entries.clone())))
    }

    async fn get_skill(&self, request: GetSkillRequestParams, _: Context) -> Answer<GetSkillResult> {
        let found = self.entries.iter().find(|skill| skill.uri == request.uri).cloned();
        let skill = found.ok_or_else(|| {
            ErrorData::invalid_params(format!("there is no skill {:?}", shown(&request.uri)), None)
        })?;
        Ok(cached!(GetSkillResult::new(skill)))
    }

    async fn read_resource_directory(
        &self,
        request: ReadResourceDirectoryRequestParams,
        _: Context,
    ) -> Answer<ReadResourceDirectoryResult> {
        no_cursor(request.cursor.as_ref())?;
        let found = self.directories.iter().find(|(uri, _)| *uri == request.uri);
        let (_, inside) = found.ok_or_else(|| {
            ErrorData::invalid_params(format!("there is no directory {:?}", shown(&request.uri)), None)
        })?;
        Ok(cached!(ListResourcesResult::with_all_items(inside.clone())))
    }
}
