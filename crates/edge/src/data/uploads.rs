//! Uploads that go on where they broke off (tus 1.0.0: core, creation, creation-with-upload, expiration, termination,
//! checksum).

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capabilities::storage::{Appended, Checksum, FileStream, Put, Upload};
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_LOCATION, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use kernel::{Code, Error, Result};
use serde_json::{Map, Value};

use super::files::{SCOPES, changed, http_date, set, text};
use super::{Ask, Data, refused, unknown};

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const VERSION: HeaderName = HeaderName::from_static("tus-version");
const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// The version of the protocol.
const ONE: HeaderValue = HeaderValue::from_static("1.0.0");

/// What bodies of bytes are called.
const BYTES: &str = "application/offset+octet-stream";

/// The longest that is said of a file, in bytes.
const SAID: usize = 8_192;

/// Answers for `/_/uploads…`.
pub(super) async fn answer(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    let answer = route(data, ask, body).await;
    let mut response = answer.unwrap_or_else(|error| refused(&error, ask.env, ask.id));
    response.headers_mut().insert(RESUMABLE, ONE);
    Ok(response)
}

async fn route(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    let (path, given) = (ask.path(), &ask.parts.headers);
    ask.no_query()?;
    let method = method(ask);
    if method == Method::OPTIONS {
        return Ok(offered());
    }
    if given.get(RESUMABLE).is_none_or(|version| version != ONE) {
        let error = Error::precondition("this is tus 1.0.0").hint("send the header Tus-Resumable: 1.0.0");
        let mut response = refused(&error, ask.env, ask.id);
        response.headers_mut().insert(VERSION, ONE);
        return Ok(response);
    }
    match (method, path.as_slice()) {
        (Method::POST, [_]) => begin(data, ask, body).await,
        (_, [_]) => Ok(ask.only("OPTIONS, POST")),
        (Method::HEAD, [_, id]) => {
            let guest = ask.guest_for(data, SCOPES).await?;
            let upload = data.files.upload(&guest, id).await?;
            let mut response = told(StatusCode::OK, &upload);
            let headers = response.headers_mut();
            headers.insert(LENGTH, HeaderValue::from(upload.length));
            if !upload.noted.is_empty() {
                set(headers, METADATA, &upload.noted);
            }
            Ok(response)
        }
        (Method::PATCH, [_, id]) => {
            if !is_bytes(given) {
                let error = Error::new(Code::InvalidInput, format!("the body must be {BYTES}"));
                return Ok(web::problem::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, ask.id, &error));
            }
            let guest = ask.guest_for(data, SCOPES).await?;
            let offset = number(given, &OFFSET, "/upload_offset")?;
            let chunks = sent(data, ask, body).await?;
            let appended = data.files.append(&guest, id, offset, checksum(given)?, chunks).await?;
            added(ask, StatusCode::NO_CONTENT, appended)
        }
        (Method::DELETE, [_, id]) => {
            let guest = ask.guest_for(data, SCOPES).await?;
            data.files.end_upload(&guest, id).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        (_, [_, _]) => Ok(ask.only("OPTIONS, HEAD, PATCH, DELETE")),
        _ => Err(unknown()),
    }
}

/// What is meant where a client can send nothing but POST.
fn method(ask: &Ask<'_>) -> Method {
    let meant = ask.parts.headers.get(OVERRIDE).and_then(|name| Method::from_bytes(name.as_bytes()).ok());
    let meant = meant.filter(|meant| [Method::PATCH, Method::DELETE, Method::HEAD].contains(meant));
    meant.filter(|_| ask.parts.method == Method::POST).unwrap_or(ask.parts.method.clone())
}

/// What there is of the protocol.
fn offered() -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let extensions = "creation,creation-with-upload,expiration,termination,checksum";
    let fields = [(EXTENSION, extensions), (ALGORITHM, "sha1,sha256")];
    response.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response.headers_mut().insert(VERSION, ONE);
    response
}

async fn begin(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    let given = &ask.parts.headers;
    let guest = ask.guest_for(data, SCOPES).await?;
    let length = number(given, &LENGTH, "/upload_length")?;
    let noted = text(given, &METADATA)?.unwrap_or_default();
    let put = Put { length: Some(length), ..said(&noted)? };
    let upload = data.files.begin_upload(&guest, put, noted).await?;
    let location = format!("/_/uploads/{}", upload.id);
    let mut response = if is_bytes(given) && !upload.done {
        let chunks = sent(data, ask, body).await?;
        let appended = data.files.append(&guest, &upload.id, 0, checksum(given)?, chunks).await?;
        added(ask, StatusCode::CREATED, appended)?
    } else {
        told(StatusCode::CREATED, &upload)
    };
    if response.status() == StatusCode::CREATED {
        set(response.headers_mut(), LOCATION, &location);
    }
    Ok(response)
}

/// The body as it arrives, as long as who sends it is who they were.
async fn sent(data: &Data, ask: &Ask<'_>, body: Body) -> Result<FileStream> {
    let chunks = web::body::chunks(body);
    let Some(token) = ask.token()? else { return Ok(chunks) };
    let held = data.auth.hold_for(ask.env, data.rows.live(), Some(&token), SCOPES).await?;
    let still = move |chunk| {
        let is_over = held.ended().is_cancelled();
        async move { if is_over { Err(changed()) } else { Ok(chunk) } }
    };
    Ok(chunks.and_then(still).boxed())
}

fn added(ask: &Ask<'_>, status: StatusCode, appended: Appended) -> Result<Response> {
    match appended {
        Appended::Kept(upload) => Ok(told(status, &upload)),
        Appended::Mismatch => {
            let error = Error::invalid("/upload_checksum", "the bytes are others than their checksum says")
                .hint("send them again");
            // The protocol's own status.
            let status = StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST);
            Ok(web::problem::refusal(status, ask.id, &error))
        }
    }
}

/// How far an upload is.
fn told(status: StatusCode, upload: &Upload) -> Response {
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(OFFSET, HeaderValue::from(upload.offset));
    set(headers, EXPIRES, &http_date(upload.expires_at));
    if upload.done {
        set(headers, CONTENT_LOCATION, &upload.address());
    }
    if let Some(etag) = &upload.etag {
        set(headers, ETAG, etag);
    }
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn is_bytes(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind == BYTES)
}

fn number(headers: &HeaderMap, name: &HeaderName, at: &str) -> Result<u64> {
    let text = text(headers, name)?.unwrap_or_default();
    let digits = !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    let wrong = || Error::invalid(at, format!("the header {name} is a whole number of bytes"));
    text.parse().ok().filter(|_| digits).ok_or_else(wrong)
}

/// `sha1 <base64>` or `sha256 <base64>`.
fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>> {
    let Some(text) = text(headers, &CHECKSUM)? else { return Ok(None) };
    let wrong = || {
        Error::invalid("/upload_checksum", "the checksum cannot be read")
            .hint("write it like sha256 and the hash in base64; sha1 is taken too")
    };
    let (algorithm, hash) = text.split_once(' ').ok_or_else(wrong)?;
    let hash = STANDARD.decode(hash.trim()).map_err(|_| wrong())?;
    match (algorithm, hash.len()) {
        ("sha1", 20) => Ok(Some(Checksum::Sha1(hash))),
        ("sha256", 32) => Ok(Some(Checksum::Sha256(hash))),
        _ => Err(wrong()),
    }
}

/// What `Upload-Metadata` says of the file: `bucket`, `path` and `content_type`, also by the names that clients give
/// them on their own; all else is noted about the file.
fn said(text: &str) -> Result<Put> {
    let wrong = |why: &str| {
        Error::invalid("/upload_metadata", why.to_owned())
            .hint("write it like bucket cGhvdG9z,path YS5wbmc=: names, and values in base64")
    };
    if text.len() > SAID {
        return Err(wrong(&format!("it is longer than {SAID} bytes")));
    }
    let (mut put, mut noted) = (Put::default(), Map::new());
    let (mut bucket, mut path, mut name) = (None, None, None);
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = STANDARD.decode(value.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let value = value.ok_or_else(|| wrong("a value is no text in base64"))?;
        let twice = match key {
            "bucket" => bucket.replace(value).is_some(),
            "path" => path.replace(value).is_some(),
            "filename" | "name" => {
                name.get_or_insert(value);
                false
            }
            "content_type" | "filetype" | "type" => {
                put.content_type.get_or_insert(value);
                false
            }
            key => noted.insert(key.to_owned(), Value::String(value)).is_some(),
        };
        if twice {
            return Err(wrong(&format!("{key} is said twice")));
        }
    }
    put.bucket = bucket.ok_or_else(|| wrong("it does not say the bucket"))?;
    put.path = path.or(name).ok_or_else(|| wrong("it does not say the path"))?;
    put.metadata = (!noted.is_empty()).then_some(noted);
    Ok(put)
}
