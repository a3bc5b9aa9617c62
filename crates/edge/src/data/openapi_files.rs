//! The files of an app in its OpenAPI document.

use capabilities::access::Operation;
use capabilities::rows::App;
use serde_json::{Map, Value, json};

use super::openapi::{body, operation, reference};

/// Adds the paths of the buckets that anybody reaches, and of uploads.
pub(super) fn paths(app: &App, paths: &mut Map<String, Value>, schemas: &mut Map<String, Value>) {
    let reached: Vec<&str> = app
        .buckets
        .values()
        .filter(|bucket| Operation::ALL.iter().any(|it| bucket.table.allows(*it)))
        .map(|bucket| bucket.name.as_str())
        .collect();
    if reached.is_empty() {
        return;
    }
    schemas.insert("app.File".to_owned(), file());
    let in_path =
        |name: &str, schema: Value| json!({ "in": "path", "name": name, "required": true, "schema": schema });
    let query = |name: &str, kind: &str, about: &str| json!({ "in": "query", "name": name, "description": about, "schema": { "type": kind } });
    let header = |name: &str, about: &str| json!({ "in": "header", "name": name, "description": about, "schema": { "type": "string" } });
    let bucket = in_path("bucket", json!({ "enum": reached }));
    let mut path = in_path("path", json!({ "type": "string" }));
    path["description"] = json!("With its slashes as they are.");

    let listed = json!({ "type": "object", "required": ["files"], "properties": {
        "files": { "type": "array", "items": reference("app.File") },
        "cursor": { "type": "string", "description": "There where more files follow." },
    } });
    let mut list = operation("Lists files by their paths.", 200, Some(listed));
    list["parameters"] = json!([
        query("prefix", "string", "What their paths begin with."),
        query("limit", "integer", "1 to 200; 50 without it."),
        query("cursor", "string", "The cursor of the page before, with the same prefix."),
    ]);
    paths.insert("/_/files/{bucket}".to_owned(), json!({ "parameters": [bucket], "get": list }));

    let token = query("token", "string", "Of a signed link; in place of a session.");
    let mut get = operation("Reads a file, or a part of it.", 200, None);
    get["parameters"] = json!([
        token,
        query("download", "string", "Has browsers keep it, under this name."),
        query("w", "integer", "Of a picture: its width in pixels."),
        query("h", "integer", "Its height."),
        query("fit", "string", "cover, contain or inside."),
        query("format", "string", "jpeg, png or webp."),
        query("q", "integer", "The quality of a jpeg, 1 to 100."),
        header("Range", "A part: bytes=0-99."),
        header("If-None-Match", "The ETag that is known."),
    ]);
    get["responses"]["200"]["content"] = json!({ "*/*": {} });
    get["responses"]["206"] = json!({ "description": "The part.", "content": { "*/*": {} } });
    let mut put = operation("Makes or replaces a file.", 201, Some(reference("app.File")));
    put["responses"]["200"] = put["responses"]["201"].clone();
    put["requestBody"] = json!({ "required": true, "content": { "*/*": {} } });
    put["parameters"] = json!([
        token,
        header("If-None-Match", "*: only where there is none."),
        header("If-Match", "The ETag that the file must have."),
        header("File-Metadata", "What is noted about it, a JSON object."),
    ]);
    let mut delete = operation("Removes a file.", 204, None);
    delete["parameters"] = json!([header("If-Match", "The ETag that the file must have.")]);
    let both = json!([bucket, path]);
    paths.insert(
        "/_/files/{bucket}/{path}".to_owned(),
        json!({ "parameters": both, "get": get, "put": put, "delete": delete }),
    );

    let elsewhere = body(json!({
        "type": "object", "required": ["to"], "additionalProperties": false,
        "properties": { "to": { "type": "string", "description": "Another path, where nothing is." } },
    }));
    for (verb, about, status) in
        [("move", "Gives a file another path.", 200), ("copy", "Makes the same file at another path.", 201)]
    {
        let mut post = operation(about, status, Some(reference("app.File")));
        post["requestBody"] = elsewhere.clone();
        paths.insert(
            format!("/_/files/{{bucket}}/{{path}}/{verb}"),
            json!({ "parameters": both, "post": post }),
        );
    }
    let link = json!({ "type": "object", "required": ["url", "method", "expires_at"], "properties": {
        "url": { "type": "string", "description": "On this host." },
        "method": { "enum": ["get", "put"] },
        "expires_at": { "type": "string", "format": "date-time" },
    } });
    let mut sign = operation("Makes a link that needs no session.", 200, Some(link));
    sign["requestBody"] = body(json!({
        "type": "object", "required": ["method"], "additionalProperties": false,
        "properties": {
            "method": { "enum": ["get", "put"] },
            "expires_in": { "type": "integer", "description": "Seconds, 600 without it, at most 604800." },
            "max_size": { "type": "integer", "description": "Bytes; for put." },
            "content_type": { "type": "string", "description": "For put." },
        },
    }));
    paths.insert("/_/files/{bucket}/{path}/sign".to_owned(), json!({ "parameters": both, "post": sign }));
    uploads(paths);
}

/// Uploads that can be resumed, as tus 1.0.0 has them.
fn uploads(paths: &mut Map<String, Value>) {
    let begin = operation("Begins an upload by tus 1.0.0 (https://tus.io).", 201, None);
    paths.insert("/_/uploads".to_owned(), json!({ "post": begin }));
    let id = json!([{ "in": "path", "name": "id", "required": true, "schema": { "type": "string" } }]);
    let one = json!({
        "parameters": id,
        "head": operation("How many bytes of an upload are here.", 200, None),
        "patch": operation("Adds bytes to an upload.", 204, None),
        "delete": operation("Gives an upload up.", 204, None),
    });
    paths.insert("/_/uploads/{id}".to_owned(), one);
}

fn file() -> Value {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "string", "format": "date-time" });
    json!({
        "type": "object",
        "required": [
            "bucket", "path", "size", "content_type", "etag", "owner", "metadata", "created_at", "updated_at",
        ],
        "properties": {
            "bucket": text, "path": text, "size": { "type": "integer" }, "content_type": text, "etag": text,
            "owner": { "type": ["string", "null"] }, "metadata": { "type": "object" },
            "created_at": time, "updated_at": time,
        },
    })
}
