//! The guestbook example in a real browser: a photo is sent, and seen in the size that was asked for.

use std::path::Path;
use std::time::Duration;

use conformance_tests::{App, Place, Reply, browser};
use serde_json::{Value, json};
use testkit::{eventually, finish};

const LIMIT: Duration = Duration::from_secs(60);

fn apply(place: &Place) -> Value {
    let mut apply = place.command(&["apply", "examples/guestbook-photos", "--json"]);
    apply.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let applied = finish(apply, LIMIT).unwrap();
    assert!(applied.success(), "{applied:?}");
    serde_json::from_str(&applied.stdout).unwrap()
}

/// Draws a photo of 1,200 by 800 pixels in the page and picks it, as somebody with a camera does.
const PICK: &str = "return (async () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 1200, height: 800 });
    const pen = canvas.getContext('2d');
    pen.fillStyle = 'rgb(200, 30, 30)';
    pen.fillRect(0, 0, 1200, 800);
    const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
    const picked = new DataTransfer();
    picked.items.add(new File([blob], 'holiday.png', { type: 'image/png' }));
    const input = document.querySelector('#photo');
    input.files = picked.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
    return true;
})()";

/// The size in which the first photo has arrived, and a colour of it.
const SEEN: &str = "const image = document.querySelector('#entries img');
    if (!image?.complete || image.naturalWidth === 0) return null;
    const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
    const pen = canvas.getContext('2d');
    pen.drawImage(image, 0, 0, 1, 1);
    const [r, g] = pen.getImageData(0, 0, 1, 1).data;
    return [image.naturalWidth, image.naturalHeight, r > 180 && g < 60, image.alt];";

#[test]
fn a_photo_is_sent_and_seen_in_another_size() {
    let place = Place::new("guests").unwrap();
    assert_eq!(apply(&place)["changed"], json!(true));
    let (seen, console) = browser(|browser| {
        browser.goto(&place.url)?;
        eventually(LIMIT, || {
            browser
                .evaluate("return document.querySelector('#empty').checkVisibility()")
                .ok()
                .filter(|it| *it == true)
        });
        browser.type_into("[name=name]", "Ada")?;
        browser.type_into("[name=message]", "It was <b>lovely</b> here.")?;
        browser.evaluate(PICK)?;
        browser.click("#send")?;
        let seen = eventually(LIMIT, || browser.evaluate(SEEN).ok().filter(|seen| !seen.is_null()));
        anyhow::ensure!(browser.text("#entries .message")? == "It was <b>lovely</b> here.");
        Ok((seen, browser.console()?))
    })
    .unwrap();
    assert_eq!(seen, Some(json!([960, 720, true, "Photo from Ada"])));
    assert_eq!(console, Vec::<String>::new());

    // An attacker: into somebody else's folder, something that is no picture, somebody else's photo.
    let app = App::new(&place.url);
    let (mallory, rows) = (app.stranger().unwrap(), app.visitor().list("entries", &[]).unwrap());
    let (photo, owner) =
        (rows.body["rows"][0]["photo"].as_str().unwrap(), rows.body["rows"][0]["owner"].as_str().unwrap());
    let put = |path: &str, kind: &str, body: &str| {
        let request = mallory.request("PUT", &format!("/_/files/photos/{path}"));
        Reply::of(request.header("content-type", kind).body(body.as_bytes())).unwrap()
    };
    put(&format!("{owner}/mine.png"), "image/png", "x").refuses(403, "forbidden").unwrap();
    put(photo, "image/gif", "GIF89a").refuses(403, "forbidden").unwrap();
    put(&format!("{}/page.png", mallory.id()), "image/png", "<script>")
        .refuses(400, "invalid_input")
        .unwrap();
    put(&format!("{}/page.html", mallory.id()), "text/html", "<script>")
        .refuses(400, "invalid_input")
        .unwrap();
    mallory.ask("DELETE", &format!("/_/files/photos/{photo}")).unwrap().refuses(403, "forbidden").unwrap();
    assert_eq!(mallory.ask("GET", "/_/files/photos").unwrap().body, json!({ "files": [] }), "nobody lists");

    // And somebody else's entry, or one in somebody else's name.
    let entry = rows.body["rows"][0].clone();
    let at = format!("/_/db/entries/{}", entry["id"].as_str().unwrap());
    let hacked = json!({ "message": "Hacked" });
    let mine = json!({ "name": "Mallory", "message": "Hello" });
    let mut forged = mine.clone();
    forged["owner"] = owner.into();
    mallory.send("PATCH", &at, &hacked).unwrap().refuses(403, "forbidden").unwrap();
    mallory.send("PUT", &at, &mine).unwrap().refuses(403, "forbidden").unwrap();
    mallory.ask("DELETE", &at).unwrap().refuses(403, "forbidden").unwrap();
    let matching = mallory.request("PATCH", &at).header("if-match", "*").json(&hacked);
    Reply::of(matching).unwrap().refuses(403, "forbidden").unwrap();
    mallory.send("POST", "/_/db/entries", &forged).unwrap().refuses(403, "forbidden").unwrap();
    app.visitor().send("POST", "/_/db/entries", &mine).unwrap().refuses(403, "forbidden").unwrap();
    let batch = json!({ "operations": [
        { "do": "create", "on": "entries", "new": mine },
        { "do": "delete", "on": "entries", "id": entry["id"] },
    ] });
    mallory.send("POST", "/_/batch", &batch).unwrap().refuses(403, "forbidden").unwrap();
    assert_eq!(app.visitor().list("entries", &[]).unwrap().body["rows"], json!([entry]), "all is as it was");
}
