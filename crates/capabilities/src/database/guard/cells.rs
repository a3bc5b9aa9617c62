//! Values on their way into the engine's statements, and out of them.

use std::ffi::c_int;

use libsqlite3_sys as sys;
use serde_json::Value;

use super::super::error::Error;
use super::super::rows::Rows;
use super::super::values;

/// Binds `params` to all of a statement's parameters, and gives the engine's first result code that is not good.
///
/// # Errors
/// Where there are more or fewer, or one has no form in the engine.
///
/// # Safety
/// The statement is alive, and its bindings are cleared before `params` ends: a text is not copied.
pub(super) unsafe fn bind(raw: *mut sys::sqlite3_stmt, params: &[Value]) -> Result<c_int, Error> {
    // SAFETY: the statement is alive.
    let count = unsafe { sys::sqlite3_bind_parameter_count(raw) };
    let expected = usize::try_from(count).unwrap_or_default();
    if expected != params.len() {
        return Err(Error::ParameterCount { expected, given: params.len() });
    }
    for (index, (place, value)) in (1..=count).zip(params).enumerate() {
        let wrong = |why| Error::Parameter { index, why };
        // SAFETY: the statement is alive and has that parameter, and its texts stay as they are while they are bound.
        // Bytes are copied.
        let code = unsafe {
            match value {
                Value::Null => sys::sqlite3_bind_null(raw, place),
                Value::Bool(value) => sys::sqlite3_bind_int64(raw, place, i64::from(*value)),
                Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                    (Some(integer), _) => sys::sqlite3_bind_int64(raw, place, integer),
                    (None, Some(real)) if !number.is_u64() => sys::sqlite3_bind_double(raw, place, real),
                    _ => return Err(wrong("is larger than a 64-bit signed integer")),
                },
                Value::String(text) => {
                    let (start, length) = (text.as_ptr().cast(), text.len() as u64);
                    let utf8 = sys::SQLITE_UTF8 as u8;
                    sys::sqlite3_bind_text64(raw, place, start, length, sys::SQLITE_STATIC(), utf8)
                }
                Value::Object(object) => {
                    let bytes = values::blob(object).map_err(wrong)?;
                    let (start, length) = (bytes.as_ptr().cast(), bytes.len() as u64);
                    sys::sqlite3_bind_blob64(raw, place, start, length, sys::SQLITE_TRANSIENT())
                }
                Value::Array(_) => return Err(wrong("is an array")),
            }
        };
        if code != sys::SQLITE_OK {
            return Ok(code);
        }
    }
    Ok(sys::SQLITE_OK)
}

/// Copies one column of the current row.
///
/// # Safety
/// The statement is alive, at a row, and has that column.
pub(super) unsafe fn copy(raw: *mut sys::sqlite3_stmt, column: c_int, rows: &mut Rows) {
    // SAFETY: the caller's promise. The bytes stay where they are until the next call on the statement, and their
    // length is asked for after the pointer, as the engine wants it
    // (https://www.sqlite.org/c3ref/column_blob.html).
    unsafe {
        let bytes = |start: *const u8| {
            let length = usize::try_from(sys::sqlite3_column_bytes(raw, column)).unwrap_or_default();
            if start.is_null() { &[][..] } else { std::slice::from_raw_parts(start, length) }
        };
        match sys::sqlite3_column_type(raw, column) {
            sys::SQLITE_INTEGER => rows.int(sys::sqlite3_column_int64(raw, column)),
            sys::SQLITE_FLOAT => rows.real(sys::sqlite3_column_double(raw, column)),
            sys::SQLITE_TEXT => rows.text(bytes(sys::sqlite3_column_text(raw, column))),
            sys::SQLITE_BLOB => rows.blob(bytes(sys::sqlite3_column_blob(raw, column).cast())),
            _ => rows.null(),
        }
    }
}
