//! Sources become what runs, or an answer that says what is wrong with them.

use capabilities::functions::{Builder as _, Runtime, Settings};
use kernel::Code;

use super::world::World;

const RUNTIMES: [Runtime; 2] = [Runtime::Bun, Runtime::Node];

#[tokio::test(flavor = "multi_thread")]
async fn packages_are_installed_bundled_and_run_on_both() {
    let world = World::new().await;
    let package = r#"{ "dependencies": { "hono": "^4", "nanoid": "^5", "zod": "^4" }, "devDependencies": { "no-such-package-at-all-fnord": "1" } }"#;
    let app = "import { Hono } from 'hono';\nimport { nanoid } from 'nanoid';\nimport * as z from 'zod';\n\
        import { greeting } from './lib/greeting';\n\
        const app = new Hono();\n\
        app.get('/', (c) => c.json({ greeting: greeting(), id: nanoid().length, ok: z.string().safeParse('x').success }));\n\
        export default app;\n";
    let greeting =
        "export const greeting = (): string => `hi from ${typeof Bun === 'undefined' ? 'node' : 'bun'}`;";
    for runtime in RUNTIMES {
        let files = [("index.ts", app), ("lib/greeting.ts", greeting), ("package.json", package)];
        let sources = world.sources(runtime, &files).await;
        let called = world.built("app", sources, Settings::default()).await.unwrap();
        let (status, text) = world.asked(&called, "/").await;
        let expected = format!(r#"{{"greeting":"hi from {}","id":21,"ok":true}}"#, runtime.as_str());
        assert_eq!((status, text), (200, expected));
        let names: Vec<_> = called.function.artifact.files.keys().map(|path| path.as_str()).collect();
        assert_eq!(names, ["index.js", "index.js.map"], "one file, and what maps it to its sources");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn native_code_comes_along() {
    let world = World::new().await;
    let package = r#"{ "dependencies": { "better-sqlite3": "*", "@node-rs/crc32": "*" } }"#;
    let text = "import { crc32 } from '@node-rs/crc32';\nexport default () => new Response(String(crc32('fnord')));\n";
    let sources = world.sources(Runtime::Bun, &[("index.ts", text), ("package.json", package)]).await;
    let called = world.built("native", sources, Settings::default()).await.unwrap();
    let (status, text) = world.asked(&called, "/").await;
    assert!(status == 200 && text.parse::<u32>().is_ok(), "{status} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_built_says_where_and_why() {
    let world = World::new().await;
    for (files, field, told) in [
        (&[("index.ts", "export default { fetch( { };")][..], "/files/index.ts", "index.ts:1:"),
        (&[("index.ts", "import './gone'; export default () => 1;")], "/files/index.ts", "./gone"),
        (
            &[("index.ts", "import 'left-pad-fnord'; export default () => 1;")],
            "/files/index.ts",
            "left-pad-fnord",
        ),
        (&[("a.ts", ""), ("b.ts", "")], "/entry", "exports the handlers"),
        (&[("index.ts", ""), ("package.json", "{")], "/files/package.json", "no JSON"),
        (
            &[
                ("index.ts", ""),
                ("package.json", r#"{ "dependencies": { "no-such-package-at-all-fnord": "1" } }"#),
            ],
            "/files/package.json",
            "no-such-package-at-all-fnord",
        ),
    ] {
        let sources = world.sources(Runtime::Bun, files).await;
        let refused = world.built("wrong", sources, Settings::default()).await.unwrap_err();
        assert_eq!((refused.code(), refused.pointer()), (Code::InvalidInput, Some(field)), "{refused:?}");
        assert!(refused.message().contains(told), "{told}: {}", refused.message());
        assert!(!refused.message().contains("/workspace"), "{}", refused.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_built_runs_nothing_of_it() {
    let world = World::new().await;
    // Macros, scripts of packages, and settings that the sources bring.
    let files = [
        (
            "index.ts",
            "import { evil } from './evil' with { type: 'macro' };\nexport default () => new Response(String(evil()));",
        ),
        (
            "evil.ts",
            "export const evil = () => { require('node:fs').writeFileSync('/workspace/out-of-it', 'x'); return 'ran'; };",
        ),
        (
            "package.json",
            r#"{ "scripts": { "preinstall": "echo x > /workspace/out-of-it", "postinstall": "exit 3" }, "dependencies": { "nanoid": "^5" } }"#,
        ),
        ("bunfig.toml", "preload = [\"./evil.ts\"]\n[test]\npreload = [\"./evil.ts\"]\n"),
    ];
    let sources = world.sources(Runtime::Bun, &files).await;
    match world.built("evil", sources, Settings::default()).await {
        Ok(called) => {
            // Without macros it is an import like another: it runs when it is asked, in the function's own jail.
            let answer = world.asked(&called, "/").await;
            assert_ne!(answer.1, "ran", "{answer:?}");
        }
        Err(refused) => assert!(refused.message().contains("Macros"), "{}", refused.message()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_start_says_where_and_why() {
    let world = World::new().await;
    for runtime in RUNTIMES {
        for (files, field, told) in [
            (&[("index.ts", "export const nothing = 1;")][..], "/files", "no"),
            (
                &[
                    ("index.ts", "import './lib';\nexport default () => new Response('x');"),
                    ("lib.ts", "\n\nthrow new TypeError('fnord');"),
                ],
                "/files/lib.ts",
                "lib.ts:3",
            ),
            (
                &[(
                    "index.ts",
                    "const key = process.env.GONE;\nif (!key) throw new Error('GONE is not set');\nexport default () => new Response(key);",
                )],
                "/files/index.ts",
                "GONE is not set",
            ),
            (&[("index.ts", "process.exit(7); export default () => 1;")], "/files", "exit"),
            (
                &[
                    (
                        "index.ts",
                        "import { B } from './b';\nexport class A {}\nexport default () => new Response(`${new B()}`);",
                    ),
                    ("b.ts", "import { A } from './index';\nexport class B extends A {}"),
                ],
                "/files/b.ts",
                "b.ts:2",
            ),
        ] {
            let sources = world.sources(runtime, files).await;
            let called = world.built("wrong", sources, Settings::default()).await.unwrap();
            let variables = &called.variables;
            let refused = world.functions.start(&world.env, &called.name, &called.function, variables).await;
            let refused = refused.unwrap_err();
            assert_eq!((refused.code(), refused.pointer()), (Code::InvalidInput, Some(field)), "{refused:?}");
            assert!(refused.message().contains(told), "{told}: {}", refused.message());
        }
    }
}
