//! Which part of the platform a request is for: few words, whatever its host and path are.

use edge::HostKind;

macro_rules! doors {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// A part of the platform that answers requests.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Door { $($(#[$doc])* $name,)+ }

        impl Door {
            /// All of them.
            pub const ALL: &'static [Door] = &[$(Door::$name,)+];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Door::$name => $text,)+ }
            }
        }
    };
}

doors! {
    /// Tools over MCP.
    Mcp = "mcp",
    /// Tools over JSON.
    Tools = "tools",
    /// Sandboxes over HTTP.
    Sandboxes = "sandboxes",
    /// The platform's other resources.
    Control = "control",
    /// The authorization server.
    OAuth = "oauth",
    /// Health, and what is counted.
    Health = "health",
    /// The platform's pages, and what it does not have.
    Platform = "platform",
    /// Rows of apps.
    Rows = "rows",
    /// Users of apps.
    Users = "users",
    /// Files of apps.
    Files = "files",
    /// What happens in apps, as it happens.
    Realtime = "realtime",
    /// Functions of apps, by their names.
    Functions = "functions",
    /// Whatever else is below `/_/`.
    Data = "data",
    /// Sites of apps, and their routes.
    Apps = "apps",
    /// Servers in sandboxes.
    Previews = "previews",
    /// Hosts that are nobody's.
    Nobody = "nobody",
}

impl Door {
    /// The part that a request for this host and path is for.
    pub fn of(host: &HostKind, path: &str) -> Self {
        match host {
            HostKind::Platform => Self::of_platform(path),
            HostKind::App(_) | HostKind::Preview { .. } | HostKind::Domain(_) => Self::of_app(path),
            HostKind::Sandbox(_) => Self::Previews,
            HostKind::Unknown => Self::Nobody,
        }
    }

    fn of_platform(path: &str) -> Self {
        let (first, rest) = first(path);
        match (first, self::first(rest).0) {
            ("mcp", _) => Self::Mcp,
            ("v1", "tools") => Self::Tools,
            ("v1", "sandboxes") => Self::Sandboxes,
            ("v1", _) => Self::Control,
            ("oauth" | ".well-known", _) => Self::OAuth,
            ("healthz" | "readyz" | "metrics", _) => Self::Health,
            _ => Self::Platform,
        }
    }

    fn of_app(path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/_/") else {
            return if path == "/.well-known/jwks.json" { Self::Users } else { Self::Apps };
        };
        match rest.split('/').next().unwrap_or_default() {
            "db" | "batch" => Self::Rows,
            "auth" => Self::Users,
            "files" | "uploads" => Self::Files,
            "realtime" => Self::Realtime,
            "fn" | "svc" => Self::Functions,
            _ => Self::Data,
        }
    }
}

/// The first part of a path, and what follows.
fn first(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.find('/').map_or((path, ""), |at| path.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_for_one_part_by_its_host_and_the_beginning_of_its_path() {
        let app = HostKind::App("shop".parse().unwrap());
        let own = HostKind::Domain("shop.example".to_owned());
        let cases = [
            (&HostKind::Platform, "/mcp", "mcp"),
            (&HostKind::Platform, "/mcp/shop", "mcp"),
            (&HostKind::Platform, "/mcps", "platform"),
            (&HostKind::Platform, "/v1/tools", "tools"),
            (&HostKind::Platform, "/v1/tools/db_query", "tools"),
            (&HostKind::Platform, "/v1/sandboxes/a/exec", "sandboxes"),
            (&HostKind::Platform, "/v1/toolsx", "control"),
            (&HostKind::Platform, "/v1", "control"),
            (&HostKind::Platform, "/.well-known/oauth-authorization-server", "oauth"),
            (&HostKind::Platform, "/readyz", "health"),
            (&HostKind::Platform, "/", "platform"),
            (&HostKind::Platform, "/_/db/todos", "platform"),
            (&app, "/_/db/todos", "rows"),
            (&app, "/_/batch", "rows"),
            (&own, "/_/auth/login", "users"),
            (&own, "/.well-known/jwks.json", "users"),
            (&app, "/_/uploads", "files"),
            (&app, "/_/realtime", "realtime"),
            (&app, "/_/fn/pay/now", "functions"),
            (&app, "/_/svc/pay", "functions"),
            (&app, "/_/sdk.js", "data"),
            (&app, "/_", "apps"),
            (&app, "/v1/tools", "apps"),
            (&HostKind::Sandbox("3000-x".to_owned()), "/mcp", "previews"),
            (&HostKind::Unknown, "/mcp", "nobody"),
        ];
        for (host, path, door) in cases {
            assert_eq!(Door::of(host, path).as_str(), door, "{path}");
        }
    }
}
