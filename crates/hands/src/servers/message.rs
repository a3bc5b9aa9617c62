//! Messages of JSON-RPC, passed on as they are written: they are read as far as it takes to see whose they are.

use kernel::{Code, Error, Result};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The longest id, in bytes.
const ID: usize = 256;

/// A request or a notification.
#[derive(Debug, Deserialize)]
pub struct Message {
    jsonrpc: String,
    #[serde(default, deserialize_with = "there")]
    id: Option<Box<RawValue>>,
    method: String,
    params: Option<Box<RawValue>>,
}

/// What is there, also where it is `null`.
fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(from).map(Some)
}

impl Message {
    /// The most bytes that one may have.
    pub const LARGEST: usize = 1 << 20;

    /// Reads one.
    ///
    /// # Errors
    /// `invalid_input` where it is none.
    pub fn read(text: &[u8]) -> Result<Self> {
        let wrong = |why: String| {
            let message = format!("the body is no request and no notification of JSON-RPC 2.0: {why}");
            Error::new(Code::InvalidInput, message).hint("send one message at a time, as an MCP client does")
        };
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(wrong("it is no object".to_owned()));
        }
        let message: Self = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        if message.jsonrpc != "2.0" {
            return Err(wrong("jsonrpc is not \"2.0\"".to_owned()));
        }
        let is_id = |id: &RawValue| {
            let id = id.get();
            id.len() <= ID && id.starts_with(|first: char| matches!(first, '"' | '-' | '0'..='9'))
        };
        if message.id.as_deref().is_some_and(|id| !is_id(id)) {
            return Err(wrong(format!("the id is no number and no string of at most {ID} bytes")));
        }
        Ok(message)
    }

    /// The id that it has in the words of who sent it; a notification has none.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref().map(RawValue::get)
    }

    /// What is asked for, or told.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The id, in the words of who sent it, of the request that this one cancels.
    pub(super) fn cancels(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Params<'a> {
            #[serde(rename = "requestId", borrow)]
            request_id: &'a RawValue,
        }
        let params = self.params.as_deref().filter(|_| self.method == "notifications/cancelled")?;
        Some(serde_json::from_str::<Params<'_>>(params.get()).ok()?.request_id.get().to_owned())
    }

    /// As the one line that a program reads, with an id of ours.
    pub(super) fn line(&self, id: Option<u64>) -> String {
        let id = id.map(|id| format!(r#","id":{id}"#)).unwrap_or_default();
        let method = serde_json::Value::from(self.method.as_str());
        let params = self.params.as_deref().map(|it| format!(r#","params":{it}"#)).unwrap_or_default();
        // Outside of strings a line break is as good as a space, and inside there is none.
        let params = params.replace(['\n', '\r'], " ");
        format!("{{\"jsonrpc\":\"2.0\"{id},\"method\":{method}{params}}}\n")
    }
}

/// What a request is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its result, as text.
    Result(String),
    /// What is wrong, as text.
    Error(String),
    /// Nothing: somebody has cancelled it.
    Cancelled,
}

/// What a program says.
#[derive(Debug, Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// What it says, by what is to be done about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// An answer to that question of ours.
    Answer(u64, Answer),
    /// A question of its own, by this id.
    Question(String),
    /// Nothing that is waited for.
    Remark,
}

impl Word {
    /// Reads a line; none where it is no JSON.
    pub fn read(line: &[u8]) -> Option<Self> {
        let Said { id, method, result, error } = serde_json::from_slice(line).ok()?;
        let Some(id) = id.map(RawValue::get) else { return Some(Self::Remark) };
        if method.is_some() {
            return Some(if id.len() <= ID { Self::Question(id.to_owned()) } else { Self::Remark });
        }
        let Ok(id) = id.parse() else { return Some(Self::Remark) };
        Some(Self::Answer(
            id,
            match error {
                Some(error) => Answer::Error(error.get().to_owned()),
                None => Answer::Result(result.map_or("null", RawValue::get).to_owned()),
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_an_id_of_ours_however_it_was_written() {
        let text = "{ \"jsonrpc\": \"2.0\", \"id\": \"a\",\r\n \"method\": \"x/\\\"y\", \"params\": { \"n\":\n1.50, \"t\": \"a\\nb\" } }";
        let message = Message::read(text.as_bytes()).unwrap();
        assert_eq!((message.id(), message.method()), (Some("\"a\""), "x/\"y"));
        let line = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"x/\\\"y\",\"params\":{ \"n\": 1.50, \"t\": \"a\\nb\" }}\n";
        assert_eq!(message.line(Some(7)), line);
        let told = Message::read(br#"{"jsonrpc":"2.0","method":"n"}"#).unwrap();
        assert_eq!((told.id(), told.line(None).as_str()), (None, "{\"jsonrpc\":\"2.0\",\"method\":\"n\"}\n"));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#, "a".repeat(ID));
        for bad in [
            "",
            "[]",
            r#"["2.0",1,"x",null]"#,
            r#"{"id":1,"method":"x"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x""#,
            &long,
        ] {
            assert_eq!(Message::read(bad.as_bytes()).unwrap_err().code(), Code::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn what_a_program_says_is_an_answer_a_question_or_nothing_to_us() {
        let read = |text: &str| Word::read(text.as_bytes());
        let result = Answer::Result("{\"a\": [1]}".to_owned());
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":3,"result":{"a": [1]}}"#), Some(Word::Answer(3, result)));
        let error = Answer::Error("{}".to_owned());
        assert_eq!(read(r#"{"id":3,"error":{}}"#), Some(Word::Answer(3, error)));
        assert_eq!(read(r#"{"id":3}"#), Some(Word::Answer(3, Answer::Result("null".to_owned()))));
        assert_eq!(read(r#"{"id":"q","method":"ping"}"#), Some(Word::Question("\"q\"".to_owned())));
        for remark in [r#"{"method":"x"}"#, r#"{"id":"3","result":1}"#, r#"{"id":-1,"result":1}"#, "{}"] {
            assert_eq!(read(remark), Some(Word::Remark), "{remark}");
        }
        assert_eq!(read("welcome"), None);
    }
}
