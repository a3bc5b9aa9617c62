//! A text file of a sandbox, whole, for the tools that read and edit one.

use hands::Hand;
use kernel::{Code, Error, Result};

/// The largest that is read, in bytes.
const MOST: u32 = 8 << 20;

/// The text of the file at `path`.
///
/// # Errors
/// `not_found`; `too_large`; `invalid_input` at `/path` where it is no text.
pub async fn whole_text(hand: &Hand, path: &str) -> Result<String> {
    let _turn = hand.turn().await?;
    let (entry, bytes) = hand.files().read(path, 0, MOST).await?;
    if entry.size > u64::from(MOST) {
        let message = format!("the file has {} bytes, of at most {MOST}", entry.size);
        return Err(Error::new(Code::TooLarge, message)
            .field("/path")
            .hint("work on a part of it with shell_run: sed -n 1,200p, sed -i"));
    }
    String::from_utf8(bytes).map_err(|_| {
        Error::invalid("/path", "the file is no UTF-8 text").hint("look at it with shell_run: file, xxd")
    })
}
