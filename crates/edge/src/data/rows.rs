//! Rows of tables, by rules.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use capabilities::rows::{Batch, IfMatch, ListQuery, Stored};
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use kernel::{Code, Error, Result};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

use super::{Ask, Data, unknown};
use crate::conditional;

/// Answers for `/_/db/…`.
pub(super) async fn answer(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    let guest = ask.guest(data).await?;
    match (&ask.parts.method, ask.path().as_slice()) {
        (&Method::GET | &Method::HEAD, [_, table]) => {
            let query = list_query(ask.parts.uri.query())?;
            Ok(json(StatusCode::OK, data.rows.list(&guest, table, &query).await?))
        }
        (&Method::POST, [_, table, "query"]) => {
            let query: ListQuery = ask.json(body).await?;
            Ok(json(StatusCode::OK, data.rows.list(&guest, table, &query).await?))
        }
        (&Method::POST, [_, table]) => {
            let new = ask.row(body).await?;
            let stored = data.rows.create(&guest, table, new).await?;
            let location = format!("/_/db/{table}/{}", utf8_percent_encode(&stored.id, ID));
            let mut response = row(StatusCode::CREATED, stored);
            if let Ok(location) = HeaderValue::try_from(location) {
                response.headers_mut().insert(LOCATION, location);
            }
            Ok(response)
        }
        (&Method::GET | &Method::HEAD, [_, table, id]) => {
            ask.no_query()?;
            let stored = data.rows.get(&guest, table, id).await?;
            if conditional::client_has(&ask.parts.headers, &stored.etag) {
                let mut response = row(StatusCode::NOT_MODIFIED, Stored { json: Bytes::new(), ..stored });
                response.headers_mut().remove(CONTENT_TYPE);
                return Ok(response);
            }
            Ok(row(StatusCode::OK, stored))
        }
        (&Method::PATCH, [_, table, id]) => {
            ask.no_query()?;
            let (changes, condition) = (ask.row(body).await?, ask.if_match()?);
            Ok(row(StatusCode::OK, data.rows.update(&guest, table, id, changes, condition).await?))
        }
        (&Method::DELETE, [_, table, id]) => {
            ask.no_query()?;
            data.rows.delete(&guest, table, id, ask.if_match()?).await?;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        (_, [_, _]) => Ok(ask.only("GET, HEAD, POST")),
        (_, [_, _, "query"]) => Ok(ask.only("GET, HEAD, POST, PATCH, DELETE")),
        (_, [_, _, _]) => Ok(ask.only("GET, HEAD, PATCH, DELETE")),
        _ => Err(unknown()),
    }
}

/// Answers for `/_/batch`.
pub(super) async fn batch(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    let guest = ask.guest(data).await?;
    if ask.parts.method != Method::POST {
        return Ok(ask.only("POST"));
    }
    ask.no_query()?;
    let batch: Batch = ask.json(body).await?;
    Ok(json(StatusCode::OK, data.rows.batch(&guest, batch).await?))
}

impl Ask<'_> {
    /// The body as the values of a row.
    async fn row(&self, body: Body) -> Result<Map<String, Value>> {
        let bytes = self.bytes(body).await?;
        match web::body::json(&self.parts.headers, &bytes)? {
            Value::Object(row) => Ok(row),
            _ => Err(Error::invalid("", "a row is a JSON object of its columns")),
        }
    }

    /// The condition of the request (RFC 9110 §13.1.1).
    fn if_match(&self) -> Result<Option<IfMatch>> {
        let lines: Vec<&str> = self
            .parts
            .headers
            .get_all(IF_MATCH)
            .iter()
            .map(|line| line.to_str().map_err(|_| Error::new(Code::InvalidInput, "If-Match cannot be read")))
            .collect::<Result<_>>()?;
        Ok((!lines.is_empty()).then(|| IfMatch::parse(&lines.join(","))))
    }

    pub(super) fn no_query(&self) -> Result<()> {
        match pairs(self.parts.uri.query())?.first() {
            None => Ok(()),
            Some((name, _)) => Err(no_parameter(name)),
        }
    }
}

/// What stays as it is in the path of a `Location`.
const ID: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn row(status: StatusCode, stored: Stored) -> Response {
    let mut response = json(status, stored.json);
    if let Ok(etag) = HeaderValue::try_from(stored.etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The query string of a list.
fn list_query(raw: Option<&str>) -> Result<ListQuery> {
    let mut query = ListQuery::default();
    for (name, value) in pairs(raw)? {
        let twice = match name.as_str() {
            "select" => query.select.replace(value).is_some(),
            "where" => query.filter.replace(value).is_some(),
            "order" => query.order.replace(value).is_some(),
            "cursor" => query.cursor.replace(value).is_some(),
            "limit" => {
                let limit = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
                let limit = limit.ok_or_else(|| Error::invalid("/limit", "the limit is a whole number"))?;
                query.limit.replace(limit).is_some()
            }
            _ => return Err(no_parameter(&name)),
        };
        if twice {
            return Err(Error::invalid(format!("/{name}"), format!("{name} is given twice")));
        }
    }
    Ok(query)
}

fn no_parameter(name: &str) -> Error {
    let name: String = name.chars().take(64).collect();
    Error::new(Code::InvalidInput, format!("there is no query parameter {name:?} here"))
        .hint("a list takes select, where, order, limit and cursor")
}

/// The pairs of a query string, decoded as forms are (WHATWG URL §5.1).
pub(super) fn pairs(raw: Option<&str>) -> Result<Vec<(String, String)>> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8().map(std::borrow::Cow::into_owned)
    };
    raw.unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        })
        .collect::<Result<_, std::str::Utf8Error>>()
        .map_err(|_| Error::new(Code::InvalidInput, "the query is not UTF-8"))
}
