//! Sandboxes from outside: an agent's work in one, and what an attacker with code in it gets.

use std::net::TcpListener;

use conformance_tests::{Place, Preview};
use serde_json::{Value, json};
use testkit::{Client, Steading, require};

struct Sandbox(Place);

impl Sandbox {
    fn new(name: &str) -> Self {
        Self(Place::new(name).unwrap())
    }

    fn tool(&self, tool: &str, input: &Value) -> Value {
        self.0.output(tool, input).unwrap()
    }

    /// Holds that a call is refused so, and gives the problem.
    fn refused(&self, tool: &str, input: &Value, status: u16, code: &str) -> Value {
        refused(&self.0.client, tool, input, status, code)
    }

    /// A key that is bound to the environment, with this scope alone.
    fn key(&self, scope: &str) -> Client {
        let wanted = json!({ "name": scope, "env": self.0.slug, "scopes": [scope] });
        let operator = self.0.steading.client().without_env();
        let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
        Client::new(&self.0.steading.ready().url).with_key(made["key"].as_str().unwrap())
    }

    /// Runs a command that succeeds, and gives its output.
    fn run(&self, command: &str) -> String {
        let ran = self.tool("shell_run", &json!({ "command": command, "timeout_s": 120 }));
        assert_eq!(ran["exit_code"], 0, "{command}: {ran}");
        ran["stdout"].as_str().unwrap().to_owned()
    }

    /// Runs a command that fails, and gives all it says.
    fn fails(&self, command: &str) -> String {
        let ran = self.tool("shell_run", &json!({ "command": command, "timeout_s": 120 }));
        assert_ne!(ran["exit_code"], 0, "{command}: {ran}");
        format!("{}{}", ran["stdout"].as_str().unwrap(), ran["stderr"].as_str().unwrap())
    }
}

fn refused(client: &Client, tool: &str, input: &Value, status: u16, code: &str) -> Value {
    let answer = client.call(tool, input).unwrap();
    assert_eq!((answer.status, answer.code()), (status, code), "{tool} {input}: {answer:?}");
    answer.body
}

#[test]
fn an_agent_works_on_files_runs_them_and_goes_back() {
    let sandbox = Sandbox::new("sandbox-work");
    let source = "def total(numbers):\n    return sum(numbers)\n\nprint(total([1, 2, 3]))\n";
    assert_eq!(
        sandbox.tool("file_write", &json!({ "path": "src/sum.py", "text": source })),
        json!({ "bytes": source.len() })
    );
    assert_eq!(sandbox.run("python3 src/sum.py"), "6\n");
    let edit = json!({ "path": "src/sum.py", "old": "[1, 2, 3]", "new": "[4, 5]" });
    assert_eq!(sandbox.tool("file_edit", &edit), json!({ "changed": 1 }));
    assert_eq!(sandbox.run("cd src && python3 sum.py"), "9\n");
    assert_eq!(
        sandbox.tool("file_read", &json!({ "path": "src/sum.py", "line": 4 }))["text"],
        "print(total([4, 5]))\n"
    );
    let part = sandbox.tool("file_read", &json!({ "path": "/workspace/src/sum.py", "line": 2, "lines": 1 }));
    assert_eq!(part, json!({ "text": "    return sum(numbers)\n", "next_line": 3 }));
    assert_eq!(
        sandbox.tool("file_search", &json!({ "line": "def \\w+", "name": "*.py" })),
        json!({ "found": ["src/sum.py:1: def total(numbers):"] })
    );
    let listed = sandbox.tool("file_list", &json!({ "depth": 2 }));
    assert_eq!(listed["files"], json!(["src/", format!("src/sum.py {}", source.len() - 3)]));
    // What is more than a result holds is cut, and said to be.
    sandbox.run("mkdir many && cd many && touch $(seq -f 'file_%g.txt' 1 3000) && touch \"$(printf 'x\\033\\n%.0s' {1..80})\"");
    let many = sandbox.tool("file_list", &json!({ "path": "many" }));
    assert!(many["more"] == true && many["files"].as_array().unwrap().len() > 100, "{many}");
    assert_eq!(sandbox.tool("file_search", &json!({ "name": "*.txt" }))["more"], true);
    sandbox.run("rm -r many");
    let snapshot = sandbox.tool("workspace_snapshot", &json!({ "name": "good" }));
    sandbox.run("rm -r src && echo more > other && (sleep 1000 &)");
    let dry = sandbox.tool("workspace_restore", &json!({ "snapshot": "good", "dry_run": true }));
    assert_eq!(dry["restored"], false);
    let again = json!({ "snapshot": snapshot["snapshot"], "confirm": dry["confirm"] });
    sandbox.refused("workspace_restore", &json!({ "snapshot": "good" }), 409, "conflict");
    assert_eq!(sandbox.tool("workspace_restore", &again)["restored"], true);
    assert_eq!(
        sandbox.run("python3 src/sum.py; ls; pgrep sleep || echo nothing sleeps"),
        "9\nsrc\nnothing sleeps\n"
    );
}

#[test]
fn output_and_time_are_bounded_and_nothing_is_lost() {
    let sandbox = Sandbox::new("sandbox-bounds");
    let ran = sandbox.tool("shell_run", &json!({ "command": "seq 1 200000" }));
    let stdout = ran["stdout"].as_str().unwrap();
    assert!(
        stdout.starts_with("1\n2\n") && stdout.ends_with("199999\n200000\n") && stdout.len() < 8_000,
        "{stdout}"
    );
    let file = stdout.split("all of it is in ").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(sandbox.run(&format!("wc -l < {file}")), "200000\n");
    // A command whose time is over ends with all that it has begun, however it hides.
    let hidden = "setsid nohup sleep 4242 >/dev/null 2>&1 & (sleep 4242 &) ; sleep 4242";
    let ran = sandbox.tool("shell_run", &json!({ "command": hidden, "timeout_s": 1 }));
    assert_eq!(ran["exit_code"], 124);
    assert_eq!(sandbox.run("pgrep -f 'sleep 4242' -x || echo none"), "none\n");
    // One that ends by itself leaves what it was told to leave.
    sandbox.run("(sleep 4243 &)");
    assert_eq!(sandbox.run("pgrep -fc 'sleep 4243'").trim(), "1");
    let endless = json!({ "command": "true", "timeout_s": 0 });
    assert_eq!(sandbox.refused("shell_run", &endless, 400, "invalid_input")["field"], "/timeout_s");
    sandbox.refused("file_read", &json!({ "path": "none" }), 404, "not_found");
}

#[test]
fn code_in_a_sandbox_finds_nothing_of_the_platform() {
    // What must not be found is on this machine: a server on its loopback, and the operator's key in a file.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let sandbox = Sandbox::new("sandbox-attack");
    let ready = sandbox.0.steading.ready();
    let (key, data) = (ready.key.clone(), ready.data_dir.display().to_string());
    sandbox.fails(&format!("ls {data}"));
    sandbox.fails("ls /root");
    sandbox.fails("cat /etc/shadow");
    sandbox.fails(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}"));
    sandbox.fails(&format!("curl -sS -m 5 --noproxy '*' http://127.0.0.1:{port}/"));
    sandbox.fails(&format!("curl -sSf -m 5 http://127.0.0.1:{port}/"));
    sandbox.fails("curl -sSf -m 5 http://169.254.169.254/latest/meta-data/");
    sandbox.fails("curl -sSf -m 5 https://example.com/");
    let told = sandbox.run("curl -s -m 5 http://example.com/ || true");
    assert!(told.contains("example.com") && told.contains("sandbox.allow"), "an agent is told why: {told}");
    for attempt in [
        "unshare -U true",
        "unshare -m true",
        "mount -t tmpfs none /tmp",
        "chroot / true",
        "mknod /tmp/disk b 254 0",
        "kill -9 1",
        "echo 1 > /proc/sys/kernel/sysrq",
        "cat /proc/1/environ | grep .",
        "cat /proc/kallsyms | grep .",
        "ls /sys/kernel",
        "echo x > /usr/bin/true",
        "echo x > /etc/passwd",
        "dmesg",
        "nice -n -5 true 2>&1 | grep -v . ; ulimit -Hn 100000000",
        "su -c id",
    ] {
        sandbox.fails(attempt);
    }
    // Neither in the environment, nor in any file or process that can be read.
    let everything =
        "env; cat /proc/*/environ /proc/*/cmdline /proc/mounts /etc/* 2>/dev/null | tr '\\0' '\\n'";
    let found = sandbox.run(&format!("({everything}) | base64 -w0 > /tmp/all; grep -rslF '{}' /etc /run /tmp /var /home /workspace /usr/local 2>/dev/null | head -3; true", &key[..24]));
    assert_eq!(found, "", "the operator's key is in a file");
    let all = sandbox.run("base64 -d /tmp/all | head -c 5000");
    assert!(!all.contains(&key) && !all.contains(&data), "{all}");
    assert!(
        sandbox.run("grep ^Cap /proc/self/status").lines().all(|line| line.ends_with("0000000000000000"))
    );
    assert_eq!(sandbox.run("id -u").trim(), "1000");
    drop(server);
}

#[test]
fn two_credentials_and_two_environments_have_nothing_in_common() {
    let sandbox = Sandbox::new("sandbox-apart");
    sandbox.run("echo mine > secret");
    let other = sandbox.key("sandbox:use");
    let ran = other.output("shell_run", &json!({ "command": "ls -A; hostname" })).unwrap();
    assert_eq!(ran["stdout"], "sandbox\n");
    assert_eq!(sandbox.run("cat secret"), "mine\n");
    // A key that nobody has given the scope does not even see the tools.
    refused(&sandbox.key("db:read"), "shell_run", &json!({ "command": "true" }), 403, "forbidden");
}

#[test]
fn a_server_is_shown_at_a_secret_host_and_nowhere_else() {
    let sandbox = Sandbox::new("sandbox-preview");
    sandbox.run("mkdir site && echo 'hello from inside' > site/index.html && (python3 -m http.server 8123 -d site >/dev/null 2>&1 &)");
    let shown = sandbox.tool("preview_open", &json!({ "port": 8123 }));
    let preview = Preview::of(&shown, &sandbox.0.steading).unwrap();
    let ask = |host: &str| {
        let asked = preview.ask("GET", "/").header("host", host).send().unwrap();
        (asked.status, String::from_utf8(asked.body).unwrap())
    };
    assert_eq!(ask(&preview.host), (200, "hello from inside\n".to_owned()));
    let (label, domain) = preview.host.split_once('.').unwrap();
    let (port, token) = label.split_once('-').unwrap();
    let mut forged = token.to_owned();
    let last = if forged.pop() == Some('a') { 'b' } else { 'a' };
    forged.push(last);
    for wrong in [format!("8124-{token}"), format!("{port}-{forged}"), "8123-x".to_owned(), token.to_owned()]
    {
        assert_eq!(ask(&format!("{wrong}.{domain}")).0, 404, "{wrong}");
    }
    assert_eq!(
        sandbox.refused("preview_open", &json!({ "port": 0 }), 400, "invalid_input")["field"],
        "/port"
    );
}

#[test]
fn every_call_of_the_skill_works_in_its_order() {
    let sandbox = Sandbox::new("sandbox-skill");
    let skill = include_str!("../../../skills/work-in-a-sandbox/SKILL.md");
    let mut tried = 0;
    for block in skill.split("```json ").skip(1) {
        let (tool, rest) = block.split_once('\n').unwrap();
        let input: Value = serde_json::from_str(rest.split_once("```").unwrap().0).unwrap();
        sandbox.tool(tool, &input);
        tried += 1;
    }
    assert!(tried >= 6, "{tried} calls");
}

#[test]
fn what_a_credential_has_ends_with_it_and_makes_room_for_others() {
    let sandbox = Sandbox::new("sandbox-gone");
    let operator = sandbox.0.steading.client().without_env();
    let mut last = None;
    // More than there may be at once.
    for n in 0..23 {
        let wanted = json!({ "name": format!("key {n}"), "env": sandbox.0.slug, "scopes": ["sandbox:use"] });
        let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
        let client = Client::new(&sandbox.0.steading.ready().url).with_key(made["key"].as_str().unwrap());
        let serve = "cd /usr/share && (python3 -m http.server 9000 >/dev/null 2>&1 &)";
        let command = if n == 22 { serve } else { "true" };
        assert_eq!(client.output("shell_run", &json!({ "command": command })).unwrap()["exit_code"], 0);
        if n == 22 {
            let shown = client.output("preview_open", &json!({ "port": 9000 })).unwrap();
            last = Some(Preview::of(&shown, &sandbox.0.steading).unwrap());
        }
        let revoked =
            operator.request("DELETE", &format!("/v1/keys/{}", made["id"].as_str().unwrap())).send();
        assert!(revoked.unwrap().status < 300);
    }
    assert_eq!(last.unwrap().ask("GET", "/").send().unwrap().status, 404);
}

#[test]
fn a_workspace_past_its_quota_ends_what_writes_and_can_be_emptied() {
    let server = require(Steading::launch().env("STEADING_SANDBOX_WORKSPACE_BYTES", "536870912").start());
    let client = server.client().in_env("default");
    let fill = "while true; do head -c 50000000 /dev/zero > f$RANDOM$RANDOM || exit 7; sleep 0.2; done";
    let ended = client.call("shell_run", &json!({ "command": fill, "timeout_s": 300 })).unwrap();
    // Either the file system says no, or the sandbox is ended.
    assert!(ended.code() == "unavailable" || ended.body["exit_code"] == 7, "{ended:?}");
    let ran = client.output("shell_run", &json!({ "command": "rm -f f* && echo empty" })).unwrap();
    assert_eq!(ran["stdout"], "empty\n");
    client.output("workspace_snapshot", &json!({})).unwrap();
}

#[test]
fn a_long_command_says_what_it_does_to_whoever_listens() {
    let sandbox = Sandbox::new("sandbox-progress");
    let command =
        "for i in $(seq 1 8); do printf '\\033[1mstep %s\\033[0m\\n' $i; sleep 1; done; echo bad >&2; exit 3";
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "shell_run", "arguments": { "command": command }, "_meta": { "progressToken": "p" } },
    });
    let path = format!("/mcp/{}", sandbox.0.slug);
    let operator = sandbox.0.steading.client().without_env();
    let accept = "application/json, text/event-stream";
    let answer = operator.request("POST", &path).header("accept", accept).json(&call).send().unwrap();
    let told: Vec<Value> = answer
        .text()
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let steps: Vec<_> = told.iter().filter(|it| it["method"] == "notifications/progress").collect();
    assert!(!steps.is_empty(), "{answer:?}");
    for step in &steps {
        let (params, message) = (&step["params"], step["params"]["message"].as_str().unwrap());
        assert!(params["progressToken"] == "p" && params["total"] == 600.0, "{step}");
        assert!(
            message.starts_with("runs for ") && message.contains("\nstep ") && !message.contains('\u{1b}'),
            "{step}"
        );
        assert!(message.lines().count() <= 4, "{step}");
    }
    let result = told.iter().find(|it| it["id"] == 1).unwrap();
    let output = &result["result"]["structuredContent"];
    assert_eq!((&output["exit_code"], &output["stderr"]), (&json!(3), &json!("bad\n")), "{result}");
    assert_eq!(output["stdout"].as_str().unwrap().lines().count(), 8);
}
