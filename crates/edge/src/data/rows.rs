//! Rows of tables, by rules.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use capabilities::rows::{Batch, IfMatch, Key, ListQuery, Table, Target, Write};
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use http::{HeaderName, HeaderValue, Method, StatusCode};
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
            // No table has a dot in its name.
            match table.strip_suffix(".csv") {
                Some(table) => Ok(csv(data.rows.csv(&guest, table, &query).await?)),
                None if ask.wants_csv() => Ok(csv(data.rows.csv(&guest, table, &query).await?)),
                None => Ok(json(StatusCode::OK, data.rows.list(&guest, table, &query).await?)),
            }
        }
        (&Method::POST, [_, table, "query"]) => {
            let query: ListQuery = ask.json(body).await?;
            // Who asks may be somebody else by now: a body takes its time.
            let guest = ask.guest(data).await?;
            Ok(json(StatusCode::OK, data.rows.list(&guest, table, &query).await?))
        }
        (&Method::POST, [_, table]) => {
            ask.no_query()?;
            let (row, table) = (ask.row(body).await?, (*table).to_owned());
            ask.write(data, Write::Create { table, row }).await
        }
        (&Method::PUT, [_, table]) => {
            let (by, table) = (Target::By(ask.by()?), (*table).to_owned());
            let (row, if_match) = (ask.row(body).await?, ask.if_match()?);
            ask.write(data, Write::Put { table, target: by, row, if_match }).await
        }
        (&Method::PUT, [_, table, id]) => {
            ask.no_query()?;
            let (target, table) = (Target::Id((*id).to_owned()), (*table).to_owned());
            let (row, if_match) = (ask.row(body).await?, ask.if_match()?);
            ask.write(data, Write::Put { table, target, row, if_match }).await
        }
        (&Method::GET | &Method::HEAD, [_, table, id]) => {
            let expand = ask.expand()?;
            let stored = data.rows.get_expanded(&guest, table, id, expand.as_deref()).await?;
            // A tag names the state of the row alone, not of what comes along with it.
            if expand.is_some() {
                return Ok(json(StatusCode::OK, stored.json));
            }
            if conditional::client_has(&ask.parts.headers, &stored.etag) {
                let mut response = tagged(StatusCode::NOT_MODIFIED, Bytes::new(), Some(stored.etag));
                response.headers_mut().remove(CONTENT_TYPE);
                return Ok(response);
            }
            Ok(tagged(StatusCode::OK, stored.json, Some(stored.etag)))
        }
        (&Method::PATCH, [_, table, id]) => {
            ask.no_query()?;
            let (table, id) = ((*table).to_owned(), (*id).to_owned());
            let (row, if_match) = (ask.row(body).await?, ask.if_match()?);
            ask.write(data, Write::Update { table, id, row, if_match }).await
        }
        (&Method::DELETE, [_, table, id]) => {
            ask.no_query()?;
            let (table, id, if_match) = ((*table).to_owned(), (*id).to_owned(), ask.if_match()?);
            ask.write(data, Write::Delete { table, id, if_match }).await
        }
        (_, [_, _]) => Ok(ask.only("GET, HEAD, POST, PUT")),
        (_, [_, _, "query"]) => Ok(ask.only("GET, HEAD, POST, PUT, PATCH, DELETE")),
        (_, [_, _, _]) => Ok(ask.only("GET, HEAD, PUT, PATCH, DELETE")),
        _ => Err(unknown()),
    }
}

/// Answers for `/_/batch`.
pub(super) async fn batch(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    // Who may not ask at all is refused before the body is read.
    ask.guest(data).await?;
    if ask.parts.method != Method::POST {
        return Ok(ask.only("POST"));
    }
    ask.no_query()?;
    let batch: Batch = ask.json(body).await?;
    ask.write(data, Write::Batch(batch)).await
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

    /// Makes a change, once where the request has an `Idempotency-Key`.
    async fn write(&self, data: &Data, write: Write) -> Result<Response> {
        // Who sends it may be somebody else by now, or nobody: a body takes its time.
        let guest = &self.guest(data).await?;
        let table = match &write {
            Write::Create { table, .. } | Write::Put { table, .. } => Some(table.clone()),
            Write::Update { .. } | Write::Delete { .. } | Write::Batch(_) => None,
        };
        let reply = data.rows.write(guest, write, self.key()?.as_ref()).await?;
        let status = StatusCode::from_u16(reply.status).map_err(Error::internal)?;
        if status == StatusCode::NO_CONTENT {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            return Ok(response);
        }
        let mut response = tagged(status, reply.json, reply.etag);
        if let (StatusCode::CREATED, Some(table), Some(id)) = (status, table, reply.id) {
            let location = format!("/_/db/{table}/{}", utf8_percent_encode(&id, ID));
            if let Ok(location) = HeaderValue::try_from(location) {
                response.headers_mut().insert(LOCATION, location);
            }
        }
        Ok(response)
    }

    fn key(&self) -> Result<Option<Key>> {
        let mut lines = self.parts.headers.get_all("idempotency-key").iter();
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(line), None) => {
                let text = line.to_str().unwrap_or_default();
                Key::parse(text).map(Some)
            }
            (Some(_), Some(_)) => {
                Err(Error::new(Code::InvalidInput, "there is more than one Idempotency-Key header"))
            }
        }
    }

    /// Whether CSV is asked for, and JSON is not.
    fn wants_csv(&self) -> bool {
        let accept = self.parts.headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let kinds = accept.flat_map(|line| line.split(','));
        let mut kinds = kinds.map(|kind| kind.split(';').next().unwrap_or_default().trim());
        kinds.next().is_some_and(|first| first.eq_ignore_ascii_case("text/csv"))
    }

    /// The columns of `?by=a,b`.
    fn by(&self) -> Result<Vec<String>> {
        match pairs(self.parts.uri.query())?.as_slice() {
            [(name, columns)] if name == "by" => {
                Ok(columns.split(',').map(|it| it.trim().to_owned()).collect())
            }
            _ => Err(Error::invalid("/by", "say by which columns the row is known: ?by=slug")
                .hint("or put it by its id: /_/db/{table}/{id}")),
        }
    }

    /// `?expand=` of a row.
    fn expand(&self) -> Result<Option<String>> {
        match pairs(self.parts.uri.query())?.as_slice() {
            [] => Ok(None),
            [(name, expand)] if name == "expand" => Ok(Some(expand.clone())),
            [(name, _), ..] => {
                let name: String = name.chars().take(64).collect();
                Err(Error::new(Code::InvalidInput, format!("there is no query parameter {name:?} here"))
                    .hint("a row takes expand alone"))
            }
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

    /// # Errors
    /// Where the address has a query.
    pub(super) fn no_query(&self) -> Result<()> {
        match pairs(self.parts.uri.query())?.first() {
            None => Ok(()),
            Some((name, _)) => Err(no_parameter(name)),
        }
    }
}

/// What stays as it is in the path of a `Location`.
const ID: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn tagged(status: StatusCode, body: Bytes, etag: Option<String>) -> Response {
    let mut response = json(status, body);
    if let Some(etag) = etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// A page as CSV, as a file: nothing in it is ever shown as a page.
fn csv(table: Table) -> Response {
    let mut response = Response::new(Body::from(table.csv));
    let name = format!("attachment; filename=\"{}.csv\"", table.name);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.extend(HeaderValue::try_from(name).ok().map(|name| (CONTENT_DISPOSITION, name)));
    let cursor = table.cursor.and_then(|cursor| HeaderValue::try_from(cursor).ok());
    headers.extend(cursor.map(|cursor| (HeaderName::from_static("next-cursor"), cursor)));
    response
}

pub(super) fn json(status: StatusCode, body: Bytes) -> Response {
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
            "search" => query.search.replace(value).is_some(),
            "expand" => query.expand.replace(value).is_some(),
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
        .hint("a list takes select, where, order, limit, cursor, search and expand")
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
