//! Files of buckets, by rules.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use capabilities::access::Guest;
use capabilities::rows::IfMatch;
use capabilities::storage::{Condition, Lent, LinkMethod, ListFiles, Object, Placed, Put, Sign, View};
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use kernel::{Code, Error, Result, Scope};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::rows::pairs;
use super::{Ask, Data, json as answer_json, unknown};
use crate::conditional::{self, Part};

/// What is noted about a file that is stored, a JSON object.
pub(super) const METADATA: HeaderName = HeaderName::from_static("file-metadata");

/// Whatever a file is, a browser that opens it by itself runs nothing of it and loads nothing for it.
const NOTHING: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// Kept by this browser alone, and asked for again each time: who may read a file can change.
const ASK: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What a platform key must carry.
pub(crate) const SCOPES: &[Scope] = &[Scope::StorageRead, Scope::StorageWrite];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signing {
    method: LinkMethod,
    /// In seconds.
    expires_in: Option<u64>,
    max_size: Option<u64>,
    content_type: Option<String>,
}

/// What the query of a file's address says.
#[derive(Default)]
struct Asked {
    /// A signed link's.
    token: Option<String>,
    /// The name under which it is to be kept, not shown.
    download: Option<String>,
    /// As which picture.
    view: View,
}

/// Answers for `/_/files/…`.
pub(super) async fn answer(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    let path = ask.path();
    let (bucket, path) = match path.as_slice() {
        [_, bucket] => (*bucket, String::new()),
        [_, bucket, path @ ..] => (*bucket, path.join("/")),
        _ => return Err(unknown()),
    };
    let method = &ask.parts.method;
    if path.is_empty() {
        return match *method {
            Method::GET | Method::HEAD => list(data, ask, bucket).await,
            _ => Ok(ask.only("GET, HEAD")),
        };
    }
    match *method {
        Method::GET | Method::HEAD => read(data, ask, bucket, &path).await,
        Method::PUT => store(data, ask, bucket, &path, body).await,
        Method::DELETE => {
            ask.no_query()?;
            let guest = ask.guest_for(data, SCOPES).await?;
            data.files.delete(&guest, bucket, &path, condition(&ask.parts.headers)?).await?;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        Method::POST => act(data, ask, bucket, &path, body).await,
        _ => Ok(ask.only("GET, HEAD, PUT, DELETE")),
    }
}

async fn list(data: &Data, ask: &Ask<'_>, bucket: &str) -> Result<Response> {
    let mut query = ListFiles::default();
    for (name, value) in pairs(ask.parts.uri.query())? {
        let twice = match name.as_str() {
            "prefix" => query.prefix.replace(value).is_some(),
            "cursor" => query.cursor.replace(value).is_some(),
            "limit" => {
                let limit =
                    value.parse().map_err(|_| Error::invalid("/limit", "the limit is a whole number"));
                query.limit.replace(limit?).is_some()
            }
            _ => {
                return Err(Error::new(Code::InvalidInput, "there is no such query parameter here")
                    .hint("a list takes prefix, limit and cursor"));
            }
        };
        if twice {
            return Err(Error::invalid(format!("/{name}"), format!("{name} is given twice")));
        }
    }
    let guest = ask.guest_for(data, SCOPES).await?;
    let listed = data.files.list(&guest, bucket, &query).await?;
    let mut answer = json!({ "files": listed.files });
    if let Some(cursor) = listed.cursor {
        answer["cursor"] = cursor.into();
    }
    Ok(answer_json(StatusCode::OK, &answer))
}

/// The file with the headers that describe it, or what a conditional or partial request gets instead. The order is that
/// of RFC 9110 §13.2.2.
async fn read(data: &Data, ask: &Ask<'_>, bucket: &str, path: &str) -> Result<Response> {
    let asked = Asked::of(ask)?;
    let guest = lent(data, ask, &asked, LinkMethod::Get, bucket, path).await?.guest;
    let given = &ask.parts.headers;
    let mut again = false;
    loop {
        let object = data.files.get(&guest, bucket, path).await?;
        if !asked.view.is_plain() {
            match picture(data, &guest, &object, &asked, given).await {
                Err(error) if error.code() == Code::NotFound && !again => again = true,
                answer => return answer,
            }
            continue;
        }
        let mut headers = described(&object, asked.download.as_deref());
        if has(given, &object) {
            headers.remove(CONTENT_TYPE);
            return Ok(respond(StatusCode::NOT_MODIFIED, headers, Body::empty()));
        }
        let part = match ask.parts.method {
            Method::GET => conditional::part(given, object.size, &object.etag),
            _ => Part::Whole,
        };
        let (status, range) = match part {
            Part::Whole => (StatusCode::OK, 0..object.size),
            Part::Bytes(range) => {
                let of = format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
                set(&mut headers, CONTENT_RANGE, &of);
                (StatusCode::PARTIAL_CONTENT, range)
            }
            Part::Beyond => {
                set(&mut headers, CONTENT_RANGE, &format!("bytes */{}", object.size));
                headers.remove(CONTENT_TYPE);
                return Ok(respond(StatusCode::RANGE_NOT_SATISFIABLE, headers, Body::empty()));
            }
        };
        headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        if ask.parts.method == Method::HEAD {
            return Ok(respond(status, headers, Body::empty()));
        }
        match data.files.read(&guest, &object, range).await {
            // It was replaced between its row and its content.
            Err(error) if error.code() == Code::NotFound && !again => again = true,
            Err(error) => return Err(error),
            Ok(stream) => return Ok(respond(status, headers, Body::from_stream(stream))),
        }
    }
}

/// The picture that is in a file, as it is wanted.
async fn picture(
    data: &Data,
    guest: &Guest,
    object: &Object,
    asked: &Asked,
    given: &HeaderMap,
) -> Result<Response> {
    let mut headers = described(object, asked.download.as_deref());
    headers.remove(ACCEPT_RANGES);
    let etag = format!("{}-{}\"", object.etag.trim_end_matches('"'), asked.view);
    set(&mut headers, ETAG, &etag);
    if conditional::client_has(given, &etag) {
        headers.remove(CONTENT_TYPE);
        return Ok(respond(StatusCode::NOT_MODIFIED, headers, Body::empty()));
    }
    let made = data.files.picture(guest, object, asked.view).await?;
    set(&mut headers, CONTENT_TYPE, made.format.content_type());
    let stem = object.name().rsplit_once('.').map_or(object.name(), |(stem, _)| stem);
    let own = format!("{stem}.{}", made.format.extension());
    let (how, name) = match asked.download.as_deref() {
        None => ("inline", own.as_str()),
        Some("") => ("attachment", own.as_str()),
        Some(name) => ("attachment", name),
    };
    set(&mut headers, CONTENT_DISPOSITION, &disposition(how, name));
    Ok(respond(StatusCode::OK, headers, Body::from(made.bytes)))
}

async fn store(data: &Data, ask: &Ask<'_>, bucket: &str, path: &str, body: Body) -> Result<Response> {
    let mut chunks = web::body::chunks(body);
    let stored = async {
        let asked = Asked::of(ask)?;
        let first = lent(data, ask, &asked, LinkMethod::Put, bucket, path).await?;
        // Who sends it may be somebody else when all of it is here, or nobody: a body takes its time.
        let again = async {
            let now = lent(data, ask, &asked, LinkMethod::Put, bucket, path).await?;
            if now.guest == first.guest { Ok(None) } else { Err(changed()) }
        };
        let again = futures::stream::once(again).try_filter_map(async |end| Ok(end));
        let lent = first.clone();
        let content_type = text(&ask.parts.headers, &CONTENT_TYPE)?;
        if let (Some(given), Some(signed)) = (&content_type, &lent.content_type)
            && !given.eq_ignore_ascii_case(signed)
        {
            return Err(Error::invalid("/content_type", format!("the link is for {signed}")));
        }
        let put = Put {
            bucket: bucket.to_owned(),
            path: path.to_owned(),
            content_type: content_type.or(lent.content_type),
            length: length(&ask.parts.headers),
            metadata: metadata(&ask.parts.headers)?,
            condition: condition(&ask.parts.headers)?,
            most: lent.max_size,
        };
        data.files.put(&lent.guest, put, (&mut chunks).chain(again)).await
    }
    .await;
    if stored.is_err() {
        web::body::discard(&ask.parts.headers, &mut chunks).await;
    }
    let Placed { object, created } = stored?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(told(status, &object))
}

/// What is done with a file: the last segment of the path is a verb.
async fn act(data: &Data, ask: &Ask<'_>, bucket: &str, path: &str, body: Body) -> Result<Response> {
    let (path, verb) = path.rsplit_once('/').ok_or_else(unknown)?;
    ask.no_query()?;
    ask.guest_for(data, SCOPES).await?;
    // Who has sent it when all of it is here.
    let guest = async || ask.guest_for(data, SCOPES).await;
    match verb {
        "move" => {
            let Elsewhere { to } = ask.json(body).await?;
            Ok(told(StatusCode::OK, &data.files.rename(&guest().await?, bucket, path, &to).await?))
        }
        "copy" => {
            let Elsewhere { to } = ask.json(body).await?;
            Ok(told(StatusCode::CREATED, &data.files.copy(&guest().await?, bucket, path, &to).await?))
        }
        "sign" => {
            let Signing { method, expires_in, max_size, content_type } = ask.json(body).await?;
            let (bucket, path) = (bucket.to_owned(), path.to_owned());
            let expires_in = expires_in.map(Duration::from_secs);
            let sign = Sign { bucket, path, method, expires_in, max_size, content_type };
            let link = data.files.sign(&guest().await?, sign).await?;
            let answer = json!({ "url": link.address(), "method": method, "expires_at": link.expires_at });
            Ok(answer_json(StatusCode::OK, &answer))
        }
        _ => Err(unknown()),
    }
}

/// A file's metadata as the answer to a change.
pub(super) fn told(status: StatusCode, object: &Object) -> Response {
    let value = serde_json::to_value(object).unwrap_or_default();
    let mut response = answer_json(status, &value);
    let headers = response.headers_mut();
    set(headers, ETAG, &object.etag);
    if status == StatusCode::CREATED {
        set(headers, LOCATION, &object.address());
    }
    response
}

impl Asked {
    fn of(ask: &Ask<'_>) -> Result<Self> {
        let mut asked = Self::default();
        for (name, value) in pairs(ask.parts.uri.query())? {
            let view = &mut asked.view;
            let twice = match name.as_str() {
                "token" => asked.token.replace(value).is_some(),
                "download" => asked.download.replace(value).is_some(),
                "w" => view.w.replace(read_value(&name, &value)?).is_some(),
                "h" => view.h.replace(read_value(&name, &value)?).is_some(),
                "q" => view.q.replace(read_value(&name, &value)?).is_some(),
                "fit" => view.fit.replace(read_value(&name, &value)?).is_some(),
                "format" => view.format.replace(read_value(&name, &value)?).is_some(),
                _ => {
                    return Err(Error::new(Code::InvalidInput, "there is no such query parameter here")
                        .hint("a file takes token, download, w, h, fit, format and q"));
                }
            };
            if twice {
                return Err(Error::invalid(format!("/{name}"), format!("{name} is given twice")));
            }
        }
        Ok(asked)
    }
}

fn read_value<T: FromStr>(name: &str, text: &str) -> Result<T> {
    let hint = match name {
        "fit" => "cover, contain or inside",
        "format" => "jpeg, png or webp",
        _ => "a whole number",
    };
    text.parse().map_err(|_| Error::invalid(format!("/{name}"), format!("{name} is {hint}")))
}

/// In whose name a file is asked for: the maker's of a signed link, or of who asks.
async fn lent(
    data: &Data,
    ask: &Ask<'_>,
    asked: &Asked,
    method: LinkMethod,
    bucket: &str,
    path: &str,
) -> Result<Lent> {
    match &asked.token {
        Some(token) => data.files.lent(ask.env, token, method, bucket, path).await,
        None => {
            let guest: Guest = ask.guest_for(data, SCOPES).await?;
            Ok(Lent { guest, max_size: None, content_type: None })
        }
    }
}

/// The refusal of a body whose sender has changed while it came.
pub(super) fn changed() -> Error {
    Error::new(Code::Unauthenticated, "the session has ended or changed while the file was sent")
        .hint("sign in again, then send it again")
}

/// The headers of a file's content.
fn described(object: &Object, download: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, CONTENT_TYPE, &object.content_type);
    set(&mut headers, ETAG, &object.etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, ASK);
    headers.insert(CONTENT_SECURITY_POLICY, NOTHING);
    if let Some(modified) = object.modified() {
        set(&mut headers, LAST_MODIFIED, &http_date(modified));
    }
    let how = if object.is_shown() && download.is_none() { "inline" } else { "attachment" };
    let name = download.filter(|name| !name.is_empty()).unwrap_or(object.name());
    set(&mut headers, CONTENT_DISPOSITION, &disposition(how, name));
    headers
}

/// RFC 6266, the name in both forms where it is not plain.
fn disposition(how: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || " ._-()".contains(c);
    let ascii: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if ascii == name {
        return format!("{how}; filename=\"{name}\"");
    }
    format!("{how}; filename=\"{ascii}\"; filename*=UTF-8''{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

/// Whether the client has the file as it is: by its tag, or by its time where no tag is given (RFC 9110 §13.1.3).
fn has(headers: &HeaderMap, object: &Object) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        return conditional::client_has(headers, &object.etag);
    }
    let since =
        headers.get(IF_MODIFIED_SINCE).and_then(|at| httpdate::parse_http_date(at.to_str().ok()?).ok());
    let since = since.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let modified = object.modified().and_then(|at| u64::try_from(at.as_secs()).ok());
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since.as_secs())
}

/// A time as headers write it (RFC 9110 §5.6.7).
pub(super) fn http_date(at: kernel::Timestamp) -> String {
    let seconds = u64::try_from(at.as_secs()).unwrap_or_default();
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

/// Which state of the place a change is meant for.
pub(super) fn condition(headers: &HeaderMap) -> Result<Condition> {
    let absent = match text(headers, &IF_NONE_MATCH)?.as_deref().map(str::trim) {
        None => false,
        Some("*") => true,
        Some(_) => {
            return Err(Error::new(Code::InvalidInput, "a change takes no If-None-Match but *")
                .hint("send If-Match with the etag to change what was read"));
        }
    };
    let tags: Vec<&str> = headers
        .get_all(http::header::IF_MATCH)
        .iter()
        .map(|line| line.to_str().unwrap_or_default())
        .collect();
    match (absent, tags.is_empty()) {
        (true, true) => Ok(Condition::Absent),
        (true, false) => Err(Error::new(Code::InvalidInput, "If-Match and If-None-Match: * never both hold")),
        (false, true) => Ok(Condition::Any),
        (false, false) => Ok(Condition::Match(IfMatch::parse(&tags.join(",")))),
    }
}

/// How many bytes are announced.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What is noted about the file.
fn metadata(headers: &HeaderMap) -> Result<Option<Map<String, Value>>> {
    let Some(text) = text(headers, &METADATA)? else { return Ok(None) };
    let wrong = || Error::invalid("/metadata", "the header File-Metadata is a JSON object in ASCII");
    serde_json::from_str(&text).map(Some).map_err(|_| wrong().hint("write other characters as \\u escapes"))
}

pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value
        .to_str()
        .map_err(|_| Error::new(Code::InvalidInput, format!("the header {name} cannot be read")))?;
    Ok(Some(text.to_owned()))
}

/// Sets a header; a value that cannot be one sets nothing.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
