//! `/v1/sandboxes`: the caller's sandboxes, by id or name: what there is, what each does, and an end to it.

mod asked;
mod described;
mod exec;
mod files;
mod lines;
mod mcp;
mod processes;
mod snapshots;
mod terminal;

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::{delete, get, post};
use hands::{AwakeStatus, Visibility};
use http::StatusCode;
use kernel::{Caller, Code, Env, Error, Proof as _, Result, Scope};
use mcp_server::auth::Authenticated;
use mcp_server::name_of;
use mcp_server::platform::Shown;
use mcp_server::serving::Said;
use sandbox::runner::{Isolation, Limiting};
use sandbox::workspace::templates::Template;
use serde::Deserialize;
use serde_json::{Value, json};
use store::Workspace;
use tool::Effect;

use super::{Action, Api, answer, read, unbroken};
use asked::{Answer, Asked};

/// What a credential must carry for all of it.
const SCOPES: &[Scope] = &[Scope::SandboxUse];

pub use described::described;

pub fn routes() -> Router<Api> {
    let one = |rest: &str| format!("/v1/sandboxes/{{sandbox}}{rest}");
    Router::new()
        .route("/v1/sandboxes", get(list).post(create))
        .route(&one(""), get(show).delete(destroy))
        .route(&one("/pause"), post(pause))
        .route(&one("/resume"), post(resume))
        .route(&one("/mcp"), get(mcp::list))
        .route(&one("/mcp/{server}"), post(mcp::speak))
        .route(&one("/ports"), get(ports))
        .route(&one("/previews"), post(preview))
        .route(&one("/exec"), get(terminal::open).post(exec::exec))
        .route(&one("/processes"), get(processes::list).post(processes::spawn))
        .route(&one("/processes/{process}"), get(processes::output).delete(processes::end))
        .route(&one("/processes/{process}/signal"), post(processes::signal))
        .route(&one("/files"), get(files::read_file).put(files::write).delete(files::remove))
        .route(&one("/files/list"), get(files::list))
        .route(&one("/files/stat"), get(files::stat))
        .route(&one("/files/watch"), get(files::watch))
        .route(&one("/files/mkdir"), post(files::make_directory))
        .route(&one("/files/move"), post(files::rename))
        .route(&one("/files/search"), post(files::search))
        .route(&one("/snapshots"), get(snapshots::list).post(snapshots::take))
        .route(&one("/snapshots/{snapshot}"), delete(snapshots::remove))
        .route(&one("/restore"), post(snapshots::restore))
        .route(&one("/fork"), post(snapshots::fork))
        .route(&one("/freeze"), post(snapshots::freeze))
        .route(&one("/thaw"), post(snapshots::thaw))
}

/// The environment that a caller may use sandboxes in.
async fn environment(api: &Api, caller: &Caller) -> Result<Env> {
    match Env::authorize(caller, SCOPES) {
        Err(error) if caller.env.is_none() && error.code() == Code::InvalidInput => {
            Err(api.0.gate.missing_env(caller).await)
        }
        outcome => outcome,
    }
}

async fn list(State(api): State<Api>, Authenticated(caller): Authenticated) -> Answer {
    let work = async {
        let env = environment(&api, &caller).await?;
        let mut all = Vec::new();
        for workspace in api.platform().sandboxes(&env, &caller).await? {
            all.push(shown(&api, &workspace).await?);
        }
        Ok(all)
    };
    let all = api.act(&caller, "sandboxes.list", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &json!({ "sandboxes": all })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: Option<String>,
    template: Option<String>,
    isolation: Option<String>,
}

/// A template, by its name.
fn template(name: &str) -> Result<Template> {
    let known = Template::ALL.map(Template::as_str).join(", ");
    let wrong =
        || Error::invalid("/template", "there is no such template").hint(format!("there are {known}"));
    Template::from_name(name).ok_or_else(wrong)
}

/// How strongly a sandbox must be kept apart at least, by its name.
pub(super) fn isolation(name: &str) -> Result<Isolation> {
    let known = Isolation::ALL.map(Isolation::as_str).join(", ");
    let wrong = || {
        Error::invalid("/isolation", "sandboxes are not kept apart by that")
            .hint(format!("there are {known}"))
    };
    Isolation::from_name(name).ok_or_else(wrong)
}

async fn create(State(api): State<Api>, Authenticated(caller): Authenticated, request: Request) -> Answer {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        let wanted: Wanted = tool::decode(input.clone())?;
        let work = async {
            let env = environment(&api, &caller).await?;
            let how = hands::Wanted {
                template: wanted.template.as_deref().map(template).transpose()?,
                isolation: wanted.isolation.as_deref().map(isolation).transpose()?,
            };
            let made = api.platform().create_sandbox(&env, &caller, wanted.name.as_deref(), how).await?;
            shown(&api, &made).await
        };
        let made = api.act_once(&caller, &headers, "sandboxes.create", &input, Value::clone, work).await?;
        Ok(answer(StatusCode::CREATED, &made))
    })
    .await
}

async fn show(asked: Asked) -> Answer {
    let work = async { shown(&asked.api, &asked.workspace().await?).await };
    asked.told("sandboxes.show", Effect::Read, work).await
}

async fn pause(asked: Asked) -> Answer {
    unbroken(async move {
        let work = async {
            let workspace = asked.workspace().await?;
            asked.platform().hands.pause(&workspace).await?;
            shown(&asked.api, &workspace).await
        };
        asked.told("sandboxes.pause", Effect::Idempotent, work).await
    })
    .await
}

async fn resume(asked: Asked) -> Answer {
    unbroken(async move {
        let work = async {
            let workspace = asked.workspace().await?;
            let _hand = asked.platform().hands.wake(&workspace).await?;
            shown(&asked.api, &workspace).await
        };
        asked.told("sandboxes.resume", Effect::Idempotent, work).await
    })
    .await
}

/// Ends a sandbox, and removes its files and their snapshots.
async fn destroy(asked: Asked) -> Answer {
    unbroken(async move {
        let work = async { asked.platform().hands.remove(&asked.workspace().await?).await };
        asked.done("sandboxes.destroy", Effect::Destroy, work).await
    })
    .await
}

/// The ports that are listened on inside, with the address that each is shown at.
async fn ports(asked: Asked) -> Answer {
    let work = async {
        let workspace = asked.workspace().await?;
        let hand = asked.platform().hands.wake(&workspace).await?;
        let (ports, public) = (hand.ports().await?, asked.platform().hands.public_ports(&workspace).await?);
        let shown = |port| shown_port(port, &asked.platform().shown(&workspace, port, &public));
        Ok(json!({ "ports": ports.iter().map(|it| shown(it.port)).collect::<Vec<_>>() }))
    };
    asked.told("sandboxes.ports", Effect::Read, work).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    port: u16,
    public: Option<bool>,
    command: Option<String>,
    cwd: Option<String>,
}

/// The address that a port is shown at, whether something listens there already or not, and to whom. Where a command is
/// to serve it that begins, and is waited for.
async fn preview(asked: Asked, request: Request) -> Answer {
    unbroken(previewed(asked, request)).await
}

async fn previewed(mut asked: Asked, request: Request) -> Answer {
    let (_, input) = asked.input(request).await?;
    let work = async {
        let Port { port, public, command, cwd } = tool::decode(input)?;
        let (platform, workspace) = (asked.platform(), asked.workspace().await?);
        let to = public.map(Visibility::from);
        // Nobody waits for a server to hide it.
        if to == Some(Visibility::Private) {
            platform.show(&workspace, port, to).await?;
        }
        if platform.note_command(&workspace, port, command, cwd).await? == Said::Kept {
            platform.listens(&workspace, port).await?;
        }
        let mut shown = shown_port(port, &platform.show(&workspace, port, to).await?);
        if let Some(served) = platform.hands.served(&workspace, port).await? {
            shown["command"] = served.command.into();
        }
        Ok(shown)
    };
    asked.told("sandboxes.preview", Effect::Idempotent, work).await
}

fn shown_port(port: u16, shown: &Shown) -> Value {
    json!({ "port": port, "url": shown.url, "public": shown.public })
}

/// A sandbox as it is.
async fn shown(api: &Api, workspace: &Workspace) -> Result<Value> {
    let hands = &api.platform().hands;
    let (limits, status) = (hands.limits(), hands.status(workspace).await?);
    let mut body = json!({
        "id": workspace.sandbox, "name": name_of(workspace), "env": workspace.env, "state": status.state.as_str(),
        "template": workspace.template,
        "created_at": workspace.created.to_string(), "used_at": workspace.used.to_string(),
        "limits": {
            "memory_bytes": limits.memory_bytes, "cpu_millis": limits.cpu_millis, "pids": limits.pids,
            "tmp_bytes": limits.tmp_bytes, "disk_bytes": workspace.quota_bytes,
        },
    });
    if let Some(least) = hands.least_isolation(workspace).await? {
        body["least_isolation"] = json!(least);
    }
    if let Some(snapshot) = workspace.frozen {
        body["frozen"] = json!(snapshot);
    }
    if let Some(why) = workspace.ended {
        body["ended"] = why.as_str().into();
    }
    if let Some(AwakeStatus { isolation, limiting, usage, disk }) = &status.awake {
        body["isolation"] = json!(isolation);
        body["limits"]["enforced"] = (*limiting == Limiting::Enforced).into();
        body["usage"] = json!({
            "memory_bytes": usage.memory_bytes, "cpu_ms": usage.cpu.as_millis() as u64, "pids": usage.pids,
            "oom_kills": usage.oom_kills,
        });
        if let Some(disk) = disk {
            body["usage"]["disk_bytes"] = disk.bytes.into();
            body["usage"]["files"] = disk.files.into();
        }
    }
    Ok(body)
}
