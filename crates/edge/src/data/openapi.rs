//! The interface as an OpenAPI document (OpenAPI 3.1): what this app has, and no more.

use axum::response::Response;
use capabilities::access::Operation;
use capabilities::rows::{App, ColumnModel, TableModel, Type};
use http::{Method, StatusCode};
use kernel::Result;
use serde_json::{Map, Value, json};

use super::{Ask, json as answer_json, openapi_files, openapi_functions, openapi_realtime, openapi_routes};

pub(super) fn answer(ask: &Ask<'_>) -> Result<Response> {
    match ask.parts.method {
        Method::GET | Method::HEAD => Ok(answer_json(StatusCode::OK, &document(ask.app))),
        _ => Ok(ask.only("GET, HEAD")),
    }
}

/// The document of an app.
fn document(app: &App) -> Value {
    let (mut paths, mut schemas) = (Map::new(), common_schemas());
    for table in app.tables.values().filter(|table| Operation::ALL.iter().any(|it| table.allows(*it))) {
        table_paths(table, &mut paths);
        table_schemas(table, &mut schemas);
    }
    if !paths.is_empty() {
        paths.insert("/_/batch".to_owned(), json!({ "post": batch() }));
    }
    openapi_files::paths(app, &mut paths, &mut schemas);
    openapi_functions::add(app, &mut paths);
    openapi_realtime::add(app, &mut paths, &mut schemas);
    openapi_routes::add(app, &mut paths);
    super::auth::openapi::describe(app, &mut paths, &mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": { "title": "The interface of this app", "version": "1" },
        "servers": [{ "url": "/" }],
        "security": [{}, { "session": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "session": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "responses": { "problem": {
                "description": "A refusal.",
                "content": { "application/problem+json": { "schema": reference("app.Problem") } },
            } },
        },
    })
}

fn table_paths(table: &TableModel, paths: &mut Map<String, Value>) {
    let name = &table.name;
    let (mut rows, mut row) = (Map::new(), Map::new());
    if table.allows(Operation::List) {
        let list = json!({ "type": "object", "required": ["rows"], "properties": {
            "rows": { "type": "array", "items": reference(name) },
            "cursor": { "type": "string", "description": "There where more rows follow." },
        } });
        let parameters: Vec<Value> =
            LIST.iter().map(|(name, kind, about)| parameter(name, kind, about)).collect();
        let mut get = operation(&format!("Lists {name}."), 200, Some(list.clone()));
        get["parameters"] = parameters.into();
        rows.insert("get".to_owned(), get);
        let groups = json!({ "type": "object", "required": ["groups"], "properties": {
            "groups": { "type": "array", "items": { "type": "object" } },
            "more": { "type": "boolean", "description": "There where more groups follow." },
        } });
        let answered = json!({ "anyOf": [list, groups] });
        let about = format!("Lists {name}, asked in the body; or numbers over its rows.");
        let mut query = operation(&about, 200, Some(answered));
        let mut properties: Map<String, Value> = LIST
            .iter()
            .map(|(parameter, kind, about)| {
                ((*parameter).to_owned(), json!({ "type": kind, "description": about }))
            })
            .collect();
        properties.insert(
            "aggregate".to_owned(),
            json!({
                "type": "object", "additionalProperties": { "type": "string" },
                "description": "Name of a number: count(), count(column), sum(column), avg, min, max.",
            }),
        );
        properties.insert(
            "group".to_owned(),
            json!({
                "type": "array", "items": { "type": "string" }, "description": "Columns to count apart by.",
            }),
        );
        let mut csv =
            operation(&format!("Lists {name} as CSV; next-cursor is where more rows follow."), 200, None);
        csv["responses"]["200"]["content"] = json!({ "text/csv": { "schema": { "type": "string" } } });
        let of_csv = LIST.iter().filter(|(parameter, ..)| *parameter != "expand");
        csv["parameters"] = of_csv
            .map(|(name, kind, about)| match *name {
                "limit" => parameter(name, kind, "1 to 10000, which it is without it."),
                name => parameter(name, kind, about),
            })
            .collect();
        paths.insert(format!("/_/db/{name}.csv"), json!({ "get": csv }));
        query["requestBody"] =
            body(json!({ "type": "object", "additionalProperties": false, "properties": properties }));
        paths.insert(format!("/_/db/{name}/query"), json!({ "post": query }));
    }
    if table.allows(Operation::Create) {
        let mut create = operation(&format!("Makes a row of {name}."), 201, Some(reference(name)));
        create["requestBody"] = body(reference(&format!("{name}.new")));
        rows.insert("post".to_owned(), create);
    }
    let once = json!({
        "in": "header", "name": "Idempotency-Key", "schema": { "type": "string" },
        "description": "Under one key a change is made once; for who is signed in.",
    });
    if let Some(create) = rows.get_mut("post") {
        create["parameters"] = json!([once]);
    }
    if table.allows(Operation::Create) && table.allows(Operation::Update) {
        let mut put = operation(
            "Makes the row of this id, or changes the one that is there.",
            200,
            Some(reference(name)),
        );
        put["requestBody"] = body(reference(&format!("{name}.new")));
        put["responses"]["201"] = put["responses"]["200"].clone();
        put["parameters"] = json!([once]);
        row.insert("put".to_owned(), put.clone());
        let by: Vec<String> = table.names_of_rows().map(|names| names.join(",")).collect();
        if !by.is_empty() {
            put["summary"] = json!("Makes a row, or changes the one with the same values in unique columns.");
            put["parameters"] = json!([once, {
                "in": "query", "name": "by", "required": true, "schema": { "enum": by },
            }]);
            rows.insert("put".to_owned(), put);
        }
    }
    if table.allows(Operation::Get) {
        let get = operation("Reads a row; its ETag names this state of it.", 200, Some(reference(name)));
        row.insert("get".to_owned(), get);
    }
    let if_match = json!([{
        "in": "header", "name": "If-Match", "schema": { "type": "string" },
        "description": "The ETag that the row must have.",
    }]);
    if table.allows(Operation::Update) {
        let mut update = operation("Changes these values of a row.", 200, Some(reference(name)));
        update["requestBody"] = body(reference(&format!("{name}.change")));
        update["parameters"] = if_match.clone();
        row.insert("patch".to_owned(), update);
    }
    if table.allows(Operation::Delete) {
        let mut delete = operation("Removes a row.", 204, None);
        delete["parameters"] = if_match;
        row.insert("delete".to_owned(), delete);
    }
    if !rows.is_empty() {
        paths.insert(format!("/_/db/{name}"), rows.into());
    }
    if !row.is_empty() {
        let id = json!([{ "in": "path", "name": "id", "required": true, "schema": { "type": "string" } }]);
        row.insert("parameters".to_owned(), id);
        paths.insert(format!("/_/db/{name}/{{id}}"), row.into());
    }
}

fn parameter(name: &str, kind: &str, about: &str) -> Value {
    json!({ "in": "query", "name": name, "description": about, "schema": { "type": kind } })
}

const LIST: [(&str, &str, &str); 7] = [
    ("select", "string", "Columns, separated by commas; all without it."),
    ("where", "string", "A condition such as done == false && startsWith(title, \"a\")."),
    ("order", "string", "Columns, separated by commas, - before one turns it; id without it."),
    ("limit", "integer", "1 to 200; 50 without it."),
    ("cursor", "string", "The cursor of the page before, with the same where and order."),
    ("search", "string", "Words that rows must have, where the table is searched."),
    ("expand", "string", "Rows to bring along: a column that refers, or table_via_column."),
];

fn table_schemas(table: &TableModel, schemas: &mut Map<String, Value>) {
    let properties = |columns: &mut dyn Iterator<Item = &ColumnModel>| -> Map<String, Value> {
        columns.map(|column| (column.name.clone(), column_schema(column))).collect()
    };
    let all: Vec<&String> = table.shown().map(|column| &column.name).collect();
    let row = json!({
        "type": "object", "required": all, "properties": properties(&mut table.shown()),
    });
    let given = || table.shown().filter(|column| !column.built_in);
    let needed: Vec<&String> = given()
        .filter(|column| column.required && column.default.is_none())
        .map(|column| &column.name)
        .collect();
    let object = |properties: Map<String, Value>| json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let change = object(properties(&mut given().filter(|column| !column.immutable)));
    let mut new = object(properties(&mut given()));
    if !needed.is_empty() {
        new["required"] = json!(needed);
    }
    let name = &table.name;
    schemas.extend([(name.clone(), row), (format!("{name}.new"), new), (format!("{name}.change"), change)]);
}

fn column_schema(column: &ColumnModel) -> Value {
    let (kind, mut schema) = match column.kind {
        Type::Text => ("string", json!({})),
        Type::Int => ("integer", json!({ "format": "int64" })),
        Type::Real => ("number", json!({ "format": "double" })),
        Type::Bool => ("boolean", json!({})),
        Type::Timestamp => ("string", json!({ "format": "date-time" })),
        Type::Blob => (
            "object",
            json!({
                "required": ["base64"], "additionalProperties": false,
                "properties": { "base64": { "type": "string", "contentEncoding": "base64" } },
            }),
        ),
        Type::Json => return json!({ "description": "Any JSON value." }),
    };
    schema["type"] = if column.required { json!(kind) } else { json!([kind, "null"]) };
    if let Some(table) = &column.references {
        schema["description"] = json!(format!("The id of a row of {table}."));
    }
    schema
}

fn batch() -> Value {
    let mut batch = operation(
        "Makes up to 50 operations in one transaction: all, or none.",
        200,
        Some(json!({ "type": "object", "required": ["results"], "properties": {
            "results": { "type": "array", "items": { "type": "object", "required": ["status"], "properties": {
                "status": { "type": "integer" }, "row": { "type": "object" }, "etag": { "type": "string" },
            } } },
        } })),
    );
    batch["requestBody"] = body(json!({
        "type": "object", "required": ["operations"], "additionalProperties": false,
        "properties": { "operations": { "type": "array", "maxItems": 50, "items": {
            "type": "object", "required": ["do", "on"], "additionalProperties": false,
            "properties": {
                "do": { "enum": ["create", "get", "update", "delete"] },
                "on": { "type": "string", "description": "The table." },
                "id": { "type": "string", "description": "The row; not for create." },
                "new": { "type": "object", "description": "The values; for create and update." },
                "if_match": { "type": "string", "description": "For update and delete." },
            },
        } } },
    }));
    batch
}

/// Names with a dot are never those of tables.
fn common_schemas() -> Map<String, Value> {
    let problem = json!({
        "type": "object", "required": ["type", "title", "status", "code", "message", "request_id"],
        "properties": {
            "type": { "type": "string" }, "title": { "type": "string" }, "status": { "type": "integer" },
            "code": { "type": "string" }, "message": { "type": "string" }, "hint": { "type": "string" },
            "field": { "type": "string", "description": "A JSON pointer to what is wrong." },
            "retry_after": { "type": "integer" }, "request_id": { "type": "string" },
            "limit": { "type": "object", "description": "The limit that was reached.",
                "required": ["name", "scope", "value", "unit", "left", "raise"], "properties": {
                    "name": { "type": "string" }, "scope": { "type": "string" }, "value": { "type": "integer" },
                    "unit": { "type": "string" }, "window_s": { "type": "integer" }, "left": { "type": "integer" },
                    "reset_s": { "type": "integer" }, "raise": { "type": "string" } } },
        },
    });
    Map::from_iter([("app.Problem".to_owned(), problem)])
}

pub(super) fn operation(about: &str, status: u16, answered: Option<Value>) -> Value {
    let mut good = json!({ "description": "Done." });
    if let Some(schema) = answered {
        good["content"] = json!({ "application/json": { "schema": schema } });
    }
    json!({
        "summary": about,
        "responses": {
            status.to_string(): good,
            "default": { "$ref": "#/components/responses/problem" },
        },
    })
}

pub(super) fn body(schema: Value) -> Value {
    json!({ "content": { "application/json": { "schema": schema } } })
}

pub(super) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}
