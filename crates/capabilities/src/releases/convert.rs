//! What becomes of a column's values when its type changes.

use super::column::Type;

/// A conversion: the SQL that gives the new value, and the SQL that is true for a value that is lost.
pub(crate) struct Conversion {
    pub value: String,
    pub lost: String,
}

/// How the values of `column` (quoted) get from one type to another.
pub(crate) fn conversion(column: &str, from: Type, to: Type) -> Conversion {
    use Type::{Blob, Bool, Int, Json, Real, Text, Timestamp};
    let c = column;
    let keeps = |value: String| Conversion { value, lost: "0".to_owned() };
    // Where the value is null for what cannot be converted, just those are lost.
    let tries = |value: String| Conversion { lost: format!("{c} IS NOT NULL AND ({value}) IS NULL"), value };
    match (from, to) {
        (a, b) if a == b => keeps(c.to_owned()),
        (Json | Timestamp, Text) | (Bool, Int) => keeps(c.to_owned()),
        (Int, Text | Json) => keeps(format!("CAST({c} AS TEXT)")),
        // 15 digits, as the engine writes a real, do not tell every real apart.
        (Real, Text | Json) => keeps(format!(
            "CASE WHEN CAST(CAST({c} AS TEXT) AS REAL) = {c} THEN CAST({c} AS TEXT) ELSE printf('%!.17g', {c}) END"
        )),
        (Bool, Text) => keeps(format!("CASE {c} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END")),
        (Int | Bool, Real) => Conversion {
            value: format!("CAST({c} AS REAL)"),
            lost: format!("{c} IS NOT NULL AND {c} <> CAST({c} AS REAL)"),
        },
        (Real, Int) => Conversion {
            value: format!("CAST({c} AS INTEGER)"),
            lost: format!("{c} IS NOT NULL AND {c} <> CAST({c} AS INTEGER)"),
        },
        (Text | Json, Int) => tries(format!(
            "CASE WHEN CAST(CAST({c} AS INTEGER) AS TEXT) = trim({c}) THEN CAST({c} AS INTEGER) END"
        )),
        (Text | Json, Real) => tries(format!(
            "CASE WHEN json_valid(trim({c})) AND json_type(trim({c})) IN ('integer', 'real') \
             THEN CAST({c} AS REAL) END"
        )),
        (Text | Json, Bool) => tries(format!(
            "CASE lower(trim({c})) WHEN 'true' THEN 1 WHEN '1' THEN 1 WHEN 'false' THEN 0 WHEN '0' THEN 0 END"
        )),
        (Int | Real, Bool) => tries(format!("CASE WHEN {c} IN (0, 1) THEN CAST({c} AS INTEGER) END")),
        (Text, Json) => keeps(format!("CASE WHEN json_valid({c}) THEN {c} ELSE json_quote({c}) END")),
        (Bool, Json) => keeps(format!("CASE {c} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END")),
        (Timestamp, Json) => keeps(format!("json_quote({c})")),
        (Text, Timestamp) => tries(format!(
            "CASE WHEN {c} GLOB '[0-9][0-9][0-9][0-9]-*' THEN strftime('%Y-%m-%dT%H:%M:%fZ', {c}) END"
        )),
        (Text, Blob) => keeps(format!("CAST({c} AS BLOB)")),
        _ => Conversion { value: "NULL".to_owned(), lost: format!("{c} IS NOT NULL") },
    }
}
