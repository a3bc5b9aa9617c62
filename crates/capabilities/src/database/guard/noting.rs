//! What the triggers that note events call: how deep functions have set each other off, and a row as JSON.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use libsqlite3_sys as sys;

use super::super::feed::Feed;
use super::super::noted;

const DEPTH: &CStr = c"steading_depth";
const ROW: &CStr = c"steading_row";

/// What the triggers that note events are told, and what they tell. Whoever has the connection has it too, and need not
/// ask the connection's thread for it.
pub(in crate::database) struct Noting {
    feed: Arc<Feed>,
    depth: AtomicU8,
    noted: AtomicBool,
}

impl Noting {
    pub(super) fn new(feed: Arc<Feed>) -> Arc<Self> {
        Arc::new(Self { feed, depth: AtomicU8::new(0), noted: AtomicBool::new(false) })
    }

    /// How deep functions have set each other off until the statements that follow.
    pub fn at_depth(&self, depth: u8) {
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// To be called after a commit: has those hear of it who deliver events, where some were noted.
    pub fn committed(&self) {
        if self.noted.swap(false, Ordering::Relaxed) {
            self.feed.note();
        }
    }
}

/// Gives a connection that writes what its triggers call.
///
/// # Errors
/// Where the engine has no memory.
pub(super) fn attach(db: NonNull<sys::sqlite3>, noting: &Arc<Noting>) -> Result<(), c_int> {
    let flags = sys::SQLITE_UTF8 | sys::SQLITE_INNOCUOUS;
    let noting = Arc::into_raw(Arc::clone(noting)).cast_mut().cast::<c_void>();
    // SAFETY: the handle is locked or this thread's alone; the names are C strings that live for ever, the callbacks plain
    // functions; the engine calls the destructor once, when the connection is closed or where this fails.
    let codes = unsafe {
        let (db, depth, row) = (db.as_ptr(), DEPTH.as_ptr(), ROW.as_ptr());
        [
            sys::sqlite3_create_function_v2(
                db,
                depth,
                0,
                flags,
                noting,
                Some(depth_of),
                None,
                None,
                Some(destroy),
            ),
            sys::sqlite3_create_function_v2(
                db,
                row,
                -1,
                flags,
                std::ptr::null_mut(),
                Some(row_of),
                None,
                None,
                None,
            ),
        ]
    };
    codes.into_iter().find(|code| *code != sys::SQLITE_OK).map_or(Ok(()), Err)
}

unsafe extern "C" fn destroy(noting: *mut c_void) {
    // SAFETY: the pointer that `attach` made; the engine calls this once.
    drop(unsafe { Arc::from_raw(noting.cast::<Noting>()) });
}

/// Called by the triggers that note events, for each.
unsafe extern "C" fn depth_of(context: *mut sys::sqlite3_context, _: c_int, _: *mut *mut sys::sqlite3_value) {
    // SAFETY: the engine calls this with a context of the function, whose data is what `attach` gave.
    unsafe {
        if let Some(noting) = sys::sqlite3_user_data(context).cast::<Noting>().as_ref() {
            noting.noted.store(true, Ordering::Relaxed);
            sys::sqlite3_result_int(context, c_int::from(noting.depth.load(Ordering::Relaxed)));
        }
    }
}

/// Called by the triggers that note events of rows: `(most, before, names, value, …)` are the bytes that it may have, what
/// the call before this has made of the columns before these, their names in JSON, one in a line, and what is in them.
unsafe extern "C" fn row_of(
    context: *mut sys::sqlite3_context,
    count: c_int,
    values: *mut *mut sys::sqlite3_value,
) {
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: the engine gives that many values, which live during the call; the text is copied.
    unsafe {
        let values = if count == 0 { &[] } else { std::slice::from_raw_parts(values, count) };
        let [most, before, names, values @ ..] = values else { return };
        let most = usize::try_from(sys::sqlite3_value_int64(*most)).unwrap_or_default();
        let mut row = noted::Row::after(bytes(*before));
        for (name, found) in bytes(*names).split(|byte| *byte == b'\n').zip(values) {
            add(row.column(name), *found);
        }
        let text = row.bounded(most);
        let (start, length, utf8) = (text.as_ptr().cast(), text.len() as u64, sys::SQLITE_UTF8 as u8);
        sys::sqlite3_result_text64(context, start, length, sys::SQLITE_TRANSIENT(), utf8);
    }
}

/// # Safety
/// The value lives during the call in which this is called.
unsafe fn add(row: &mut noted::Row, found: *mut sys::sqlite3_value) {
    // SAFETY: the caller's promise.
    unsafe {
        let length = usize::try_from(sys::sqlite3_value_bytes(found)).unwrap_or_default();
        match sys::sqlite3_value_type(found) {
            sys::SQLITE_INTEGER => row.value(&sys::sqlite3_value_int64(found)),
            sys::SQLITE_FLOAT => row.value(&noted::real(sys::sqlite3_value_double(found))),
            sys::SQLITE_TEXT | sys::SQLITE_BLOB if length > noted::LARGE => row.value(&noted::cut(length)),
            sys::SQLITE_TEXT => row.value(&String::from_utf8_lossy(bytes(found))),
            sys::SQLITE_BLOB => row.value(&noted::blob(bytes(found))),
            _ => row.value(&()),
        }
    }
}

/// # Safety
/// The value lives for as long as the bytes, and nothing else is asked of it meanwhile.
unsafe fn bytes<'a>(found: *mut sys::sqlite3_value) -> &'a [u8] {
    // SAFETY: the caller's promise; the length is asked for after the bytes, as the engine wants it.
    unsafe {
        let start = sys::sqlite3_value_blob(found).cast::<u8>();
        let length = usize::try_from(sys::sqlite3_value_bytes(found)).unwrap_or_default();
        if start.is_null() { &[] } else { std::slice::from_raw_parts(start, length) }
    }
}
