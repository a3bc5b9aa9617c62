//! One process: that it answers, says what it must, and ends.

use std::time::Duration;

use functions::{Error, Level, Runtime};
use kernel::Secret;
use sandbox::session::Outcome;

use super::rig::{Rig, asked, request};

const RUNTIMES: [Runtime; 2] = [Runtime::Bun, Runtime::Node];

#[tokio::test(flavor = "multi_thread")]
async fn a_function_answers_logs_and_drains() {
    let rig = Rig::new().await;
    for runtime in RUNTIMES {
        let source = "export default { async fetch(request, env, ctx) {\n\
                        console.log('asked', new URL(request.url).pathname, ctx.requestId);\n\
                        if (new URL(request.url).pathname === '/slow') await new Promise((done) => setTimeout(done, 300));\n\
                        return new Response(`${env.GREETING} ${await request.text()} ${process.env.SECRET ?? 'none'}`);\n\
                      } };\n";
        let mut function = rig.function(runtime, &[("index.js", source)]);
        function.env.insert("GREETING".to_owned(), Secret::new("hello"));
        let instance = rig.start(&function).await.unwrap();
        assert_eq!(instance.ready()["runtime"], runtime.as_str());
        assert_eq!(asked(&instance, "POST", "/x", "you").await, (200, "hello you none".to_owned()));
        for _ in 0..20 {
            assert_eq!(asked(&instance, "POST", "/y", "you").await.0, 200);
        }
        let ping = instance.ping().await.unwrap();
        assert_eq!((ping.in_flight, ping.waiting), (0, 0));
        assert!(ping.rss > 1 << 20);
        // What is in flight is answered, and the process says by its code that it was.
        let (slow, ()) = tokio::join!(asked(&instance, "POST", "/slow", "slow"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
        });
        assert_eq!(slow.1, "hello slow none");
        instance.stop(Duration::from_secs(10)).await.unwrap();
        let lines = std::mem::take(&mut *rig.log.lock().unwrap());
        assert_eq!(lines.len(), 22, "{lines:?}");
        let first = &lines[0];
        assert_eq!((first.level, first.text.as_str()), (Level::Info, "asked /x req_1"));
        assert_eq!(first.rid.as_deref(), Some("req_1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_load_says_why() {
    let rig = Rig::new().await;
    for runtime in RUNTIMES {
        for (source, kind) in [
            ("export default { fetch( }", "syntax"),
            ("export const x = 1", "no_export"),
            ("throw new Error('top')", "throw"),
            ("import './not-there.js'; export default () => new Response('x')", "missing_module"),
            ("process.exit(3)", "exit"),
        ] {
            let function = rig.function(runtime, &[("index.mjs", source)]);
            match rig.start(&function).await.map(drop) {
                Err(Error::Failed(failure)) => {
                    assert_eq!(failure.kind, kind, "{failure:?}");
                    assert!(!failure.hint.is_empty());
                }
                other => panic!("{source}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_takes_all_memory_or_goes_round_for_ever_is_alone_in_it() {
    let rig = Rig::new().await;
    let neighbour = rig.function(Runtime::Bun, &[("index.js", "export default () => new Response('here')")]);
    let neighbour = rig.start(&neighbour).await.unwrap();
    for runtime in RUNTIMES {
        let source = "export default { async fetch(request) {\n\
                        const path = new URL(request.url).pathname;\n\
                        if (path === '/memory') { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }\n\
                        if (path === '/loop') for (;;) {}\n\
                        return new Response('fine');\n\
                      } };\n";
        let hog = rig.function(runtime, &[("index.js", source)]);
        let instance = rig.start(&hog).await.unwrap();
        assert_eq!(asked(&instance, "GET", "/", "").await.1, "fine");
        assert!(instance.send(request("GET", "/memory", "")).await.is_err());
        let outcome = tokio::time::timeout(Duration::from_secs(20), instance.ended()).await.unwrap();
        assert!(matches!(outcome, Some(Outcome::Signal(_) | Outcome::Code(_))), "{outcome:?}");
        assert_eq!(asked(&neighbour, "GET", "/", "").await.1, "here");
        instance.stop(Duration::ZERO).await.unwrap();

        let instance = rig.start(&hog).await.unwrap();
        let looping =
            tokio::time::timeout(Duration::from_millis(300), instance.send(request("GET", "/loop", "")))
                .await;
        assert!(looping.is_err(), "it goes round");
        assert!(matches!(instance.ping().await, Err(Error::Silent)));
        assert_eq!(asked(&neighbour, "GET", "/", "").await.1, "here");
        instance.stop(Duration::ZERO).await.unwrap();
    }
    neighbour.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_function_finds_nothing_that_is_not_its_own() {
    let rig = Rig::new().await;
    let source = "import fs from 'node:fs'; import net from 'node:net'; import os from 'node:os';\n\
        const tried = (what) => { try { return what(); } catch (error) { return error.code ?? String(error); } };\n\
        const dialled = (options) => new Promise((done) => {\n\
          const socket = net.connect(options, () => done('connected')).on('error', (error) => done(error.code));\n\
          setTimeout(() => { socket.destroy(); done('timeout'); }, 2000);\n\
        });\n\
        export default async () => Response.json({\n\
          write: tried(() => fs.writeFileSync('/workspace/x', 'x')),\n\
          chmod: tried(() => fs.chmodSync('/workspace/index.mjs', 0o777)),\n\
          runner: tried(() => fs.writeFileSync('/run/steading/runner/current/function-bun.mjs', 'x')),\n\
          environment: Object.keys(process.env).filter((name) => /STEADING|KEY|TOKEN|SECRET/i.test(name)),\n\
          arguments: fs.readFileSync('/proc/self/cmdline', 'utf8').includes('hidden'),\n\
          processes: fs.readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name)).length,\n\
          interfaces: Object.keys(os.networkInterfaces()),\n\
          metadata: await dialled({ host: '169.254.169.254', port: 80 }),\n\
          hosts: tried(() => fs.existsSync('/root') && fs.readdirSync('/root').length),\n\
          secret: (await import('node:process')).default.env.PASSWORD,\n\
        });\n";
    for runtime in RUNTIMES {
        let mut function = rig.function(runtime, &[("index.mjs", source)]);
        function.env.insert("PASSWORD".to_owned(), Secret::new("hidden"));
        let instance = rig.start(&function).await.unwrap();
        let (status, text) = asked(&instance, "GET", "/", "").await;
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status, 200, "{text}");
        assert_eq!(found["write"], "EROFS", "{text}");
        assert_eq!(found["chmod"], "EROFS", "{text}");
        assert!(["EROFS", "EACCES"].iter().any(|refused| found["runner"] == *refused), "{text}");
        assert_eq!(found["environment"], serde_json::json!([]), "{text}");
        assert_eq!(found["arguments"], false, "{text}");
        assert!(found["processes"].as_u64().unwrap() <= 3, "{text}");
        assert_ne!(found["metadata"], "connected", "{text}");
        assert_eq!(found["secret"], "hidden", "its own, which it is to have");
        instance.stop(Duration::from_secs(5)).await.unwrap();
    }
}
