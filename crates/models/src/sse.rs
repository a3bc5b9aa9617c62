//! A completion in pieces: server-sent events on their way, and what they say of its end and of what it has used.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::Tokens;
use crate::cover::Cover;

/// The longest line that is taken.
const LINE: usize = 1 << 20;

const DONE: &[u8] = b"[DONE]";

/// Lets events through, line by line, and knows what they have said.
#[derive(Default)]
pub(crate) struct Filter {
    /// Whether whoever asks wants the event that says what was used.
    shows_usage: bool,
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// Whether the event is left out whose end comes next.
    left_out: bool,
    /// What the last that was said says it has used, where it says so.
    tokens: Option<Tokens>,
    /// How many answers there are to be.
    answers: u64,
    /// Those that have come to their end.
    ended: BTreeSet<u64>,
    /// Whether anything has come back.
    spoken: bool,
    done: bool,
    failed: bool,
}

impl Filter {
    pub fn new(shows_usage: bool, answers: u64) -> Self {
        Self { shows_usage, answers, ..Self::default() }
    }

    fn finished(&self) -> bool {
        self.ended.len() as u64 >= self.answers
    }

    /// Whether all has been said.
    pub const fn over(&self) -> bool {
        self.done
    }

    /// Whether something was wrong, which is said already.
    pub const fn failed(&self) -> bool {
        self.failed
    }

    /// What was used, where it was said. Of an answer that has not come to its end it says less than it was.
    pub fn tokens(&self) -> Option<Tokens> {
        let whole = self.done || self.finished();
        self.tokens.filter(|used| whole && (used.completion > 0 || !self.spoken))
    }

    /// Takes a part of the answer, and gives what is sent on.
    pub fn take(&mut self, part: &[u8], cover: &Cover) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = part;
        while !self.done && !self.failed {
            let Some(at) = memchr::memchr(b'\n', rest) else {
                self.line.extend_from_slice(rest);
                break;
            };
            self.line.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            if self.line.len() <= LINE {
                let line = std::mem::take(&mut self.line);
                self.whole(line.strip_suffix(b"\r").unwrap_or(&line), cover, &mut out);
            }
        }
        if self.line.len() > LINE && !self.failed {
            self.line = Vec::new();
            self.fail("the model says too much at once", &mut out);
        }
        out
    }

    /// The answer is at its end.
    pub fn end(&mut self, cover: &Cover) -> Vec<u8> {
        let mut out = if self.line.is_empty() { Vec::new() } else { self.take(b"\n", cover) };
        if self.done || self.failed {
            return out;
        }
        if !self.ended.is_empty() {
            self.done = true;
            out.extend_from_slice(b"\ndata: [DONE]\n\n");
        } else {
            self.fail("the model has ended before its answer did", &mut out);
        }
        out
    }

    /// The answer does not go on.
    pub fn cut(&mut self, why: &str) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.done && !self.failed {
            self.fail(why, &mut out);
        }
        out
    }

    fn whole(&mut self, line: &[u8], cover: &Cover, out: &mut Vec<u8>) {
        if line.is_empty() {
            if !std::mem::take(&mut self.left_out) {
                out.push(b'\n');
            }
            return;
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            let data = data.trim_ascii();
            if data == DONE {
                self.done = true;
                out.extend_from_slice(b"data: [DONE]\n\n");
                return;
            }
            if !self.passes(data, cover, out) {
                return;
            }
        }
        out.extend_from_slice(&cover.bytes(line));
        out.push(b'\n');
    }

    /// Whether an event's data goes on.
    fn passes(&mut self, data: &[u8], cover: &Cover, out: &mut Vec<u8>) -> bool {
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            self.fail("the model does not answer as it should", out);
            return false;
        };
        let error = &value["error"];
        if !error.is_null() {
            let said = error["message"].as_str().or_else(|| error.as_str()).unwrap_or_default();
            self.fail(&format!("the model has failed: {}", cover.message(said)), out);
            return false;
        }
        let choices = value["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
        for choice in choices {
            let delta = choice["delta"].as_object().into_iter().flatten();
            self.spoken |= delta.into_iter().any(|(name, it)| name != "role" && speaks(it));
            if choice["finish_reason"].is_string() {
                self.ended.insert(choice["index"].as_u64().unwrap_or_default());
            }
        }
        // What was said before there was more is not all.
        let said = tokens(&value["usage"]);
        self.tokens = said.or(self.tokens.filter(|_| choices.is_empty()));
        let says_usage_alone = choices.is_empty() && value["usage"].is_object();
        self.left_out = says_usage_alone && !self.shows_usage;
        !self.left_out
    }

    fn fail(&mut self, why: &str, out: &mut Vec<u8>) {
        self.failed = true;
        let error = json!({ "error": { "message": why, "type": "unavailable", "code": "unavailable" } });
        // What stands before it may be an event that is not whole.
        out.extend_from_slice(format!("\ndata: {error}\n\n").as_bytes());
    }
}

fn speaks(delta: &Value) -> bool {
    match delta {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(parts) => !parts.is_empty(),
        _ => true,
    }
}

/// What `usage` says; none where it does not say all of it. What is thought and not shown is part of the answer, also where it
/// is in the total alone.
pub(crate) fn tokens(usage: &Value) -> Option<Tokens> {
    let count = |it: &Value| it.as_u64().or_else(|| it.as_f64().and_then(whole));
    let total = count(&usage["total_tokens"]);
    let completion = count(&usage["completion_tokens"]);
    let prompt = count(&usage["prompt_tokens"]).or_else(|| total?.checked_sub(completion?))?;
    let rest = total.map(|total| total.saturating_sub(prompt));
    let thought = count(&usage["completion_tokens_details"]["reasoning_tokens"]);
    let completion = completion.max(rest)?.max(thought.unwrap_or_default());
    let cached = count(&usage["prompt_tokens_details"]["cached_tokens"])
        .or_else(|| count(&usage["prompt_cache_hit_tokens"]))
        .unwrap_or_default()
        .min(prompt);
    (prompt > 0 || completion > 0).then_some(Tokens { prompt, cached, completion })
}

/// A number that some write with a point.
fn whole(number: f64) -> Option<u64> {
    // Above it not every number can be told from the next.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let is_whole = (0.0..=MOST).contains(&number) && number.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in range")]
    is_whole.then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use kernel::Secret;
    use proptest::prelude::*;

    use super::*;

    const USUAL: &str = ": hello\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"hé\"},\"finish_reason\":null}],\"usage\":null}\r\n\r\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"total_tokens\":12}}\n\n\
        data: [DONE]\n\ndata: never\n\n";

    fn cover() -> Cover {
        Cover::new(Some(&Secret::new("sk-0123456789")), &"http://127.0.0.1:1/v1".parse().unwrap())
    }

    fn through(parts: &[&[u8]], shows_usage: bool) -> (String, Filter) {
        let (mut filter, cover) = (Filter::new(shows_usage, 1), cover());
        let mut out: Vec<u8> = parts.iter().flat_map(|part| filter.take(part, &cover)).collect();
        out.extend(filter.end(&cover));
        (String::from_utf8(out).unwrap(), filter)
    }

    fn whole(text: &str) -> (String, Filter) {
        through(&[text.as_bytes()], false)
    }

    #[test]
    fn what_was_used_is_known_and_shown_to_who_wants_it() {
        let (said, filter) = whole(USUAL);
        assert_eq!(filter.tokens(), Some(Tokens { prompt: 7, cached: 0, completion: 5 }));
        assert!(filter.over() && !filter.failed());
        assert!(!said.contains("prompt_tokens") && !said.contains("never"), "{said}");
        assert_eq!(said.matches("\n\n").count(), 4, "{said:?}");
        assert!(said.ends_with("data: [DONE]\n\n"));
        let (said, _) = through(&[USUAL.as_bytes()], true);
        assert!(said.contains("prompt_tokens"));
    }

    #[test]
    fn an_end_that_is_none_is_an_error() {
        let chunk = |reason: &str| format!("data: {{\"choices\":[{{\"finish_reason\":{reason}}}]}}\n\n");
        let (said, filter) = whole(&chunk("null"));
        assert!(filter.failed() && said.contains("ended before its answer did"), "{said}");
        let (said, filter) = whole(&chunk("\"stop\""));
        assert!(filter.over() && said.ends_with("data: [DONE]\n\n"));
        // What was used by then is not all.
        let so_far = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}}\n\n";
        let (_, filter) = whole(so_far);
        assert!(filter.failed() && filter.tokens().is_none());
        let (_, filter) = whole(&format!("{so_far}{}", chunk("\"stop\"")));
        assert!(filter.over() && filter.tokens().is_none());
        let (_, filter) = whole(&format!("{}{so_far}", chunk("\"stop\"")));
        assert!(filter.over() && filter.tokens().is_some());
        // One of two has come to its end.
        let mut two = Filter::new(false, 2);
        drop(two.take(format!("{}{so_far}", chunk("\"stop\"")).as_bytes(), &cover()));
        assert!(two.tokens().is_none());
        let other = "data: {\"choices\":[{\"index\":1,\"finish_reason\":\"stop\"}]}\n\n";
        drop(two.take(format!("{other}{so_far}").as_bytes(), &cover()));
        assert!(two.tokens().is_some());
        // Words that came from nothing.
        let words = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\
            \"usage\":{\"prompt_tokens\":7,\"completion_tokens\":0}}\n\ndata: [DONE]\n\n";
        assert!(whole(words).1.tokens().is_none());
        let (said, filter) = whole("data: {\"choices\":[");
        assert!(filter.failed() && said.contains("as it should"), "{said}");
        let (_, filter) = whole("data: [DONE]");
        assert!(filter.over());
    }

    #[test]
    fn errors_on_the_way_and_hostile_lines_end_it_and_no_key_is_shown() {
        let (said, filter) =
            whole("data: {\"error\":{\"message\":\"bad sk-0123456789\",\"x\":1}}\n\ndata: {}\n\n");
        assert!(filter.failed());
        assert_eq!(
            said,
            "\ndata: {\"error\":{\"message\":\"the model has failed: bad ***\",\"type\":\"unavailable\",\"code\":\"unavailable\"}}\n\n"
        );
        let giant = format!("data: {}", "x".repeat(LINE));
        let (said, filter) = whole(&giant);
        assert!(filter.failed() && said.contains("too much at once") && said.len() < 200);
        let (said, filter) = whole(&format!("{giant}\n\n"));
        assert!(filter.failed() && said.contains("too much at once") && said.len() < 200, "{}", said.len());
        let (said, _) = whole(": sk-0123456789\ndata: {\"choices\":[{\"delta\":\"sk-0123456789\"}]}\n\n");
        assert!(!said.contains("sk-0123456789"), "{said}");
    }

    #[test]
    fn usage_is_read_as_far_as_it_makes_sense() {
        let read = |usage: Value| tokens(&usage).map(|it| (it.prompt, it.cached, it.completion));
        assert_eq!(read(json!({ "prompt_tokens": 3, "total_tokens": 10 })), Some((3, 0, 7)));
        assert_eq!(read(json!({ "completion_tokens": 3, "total_tokens": 10 })), Some((7, 0, 3)));
        assert_eq!(read(json!({ "prompt_tokens": 1000.0, "completion_tokens": 5.0 })), Some((1000, 0, 5)));
        let cached = |count: u64| {
            json!({ "prompt_tokens": 3, "completion_tokens": 0,
                "prompt_tokens_details": { "cached_tokens": count } })
        };
        assert_eq!((read(cached(2)), read(cached(9))), (Some((3, 2, 0)), Some((3, 3, 0))));
        let hit = json!({ "prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4 });
        assert_eq!(read(hit), Some((9, 4, 1)));
        // What was thought is in the total, or in the details alone.
        let total = json!({ "prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 331 });
        assert_eq!(read(total), Some((12, 0, 319)));
        let details = json!({ "prompt_tokens": 12, "completion_tokens": 2,
            "completion_tokens_details": { "reasoning_tokens": 50 } });
        assert_eq!(read(details), Some((12, 0, 50)));
        // Half of it is nothing.
        for half in [
            json!({ "prompt_tokens": 3 }),
            json!({ "completion_tokens": 3 }),
            json!({ "prompt_tokens": 1.5, "completion_tokens": 3 }),
            json!({ "total_tokens": 9 }),
        ] {
            assert_eq!(read(half.clone()), None, "{half}");
        }
        assert_eq!(read(json!({ "prompt_tokens": -3, "completion_tokens": "x" })), None);
        assert_eq!(read(json!(null)), None);
    }

    proptest! {
        #[test]
        fn where_it_is_cut_changes_nothing(cuts in proptest::collection::vec(0..USUAL.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut parts: Vec<&[u8]> = Vec::new();
            let mut from = 0;
            for cut in cuts {
                parts.push(&USUAL.as_bytes()[from..cut]);
                from = cut;
            }
            parts.push(&USUAL.as_bytes()[from..]);
            prop_assert_eq!(through(&parts, false).0, whole(USUAL).0);
        }
    }
}
