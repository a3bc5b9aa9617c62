//! Reads `steading.toml`, with the line of whatever is wrong.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::settings::{self, Setting};
use super::value::Kind;
use super::{Config, Error, Source};

/// Reads the file at `path` into `config`.
pub(super) fn read(path: &Path, config: &mut Config) -> Result<(), Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text, config)
}

/// Reads `text`, the contents of the file at `path`, into `config`.
pub(super) fn parse(path: &Path, text: &str, config: &mut Config) -> Result<(), Error> {
    let reader = Reader { path, text };
    let table = DeTable::parse(text).map_err(|e| Error::Syntax {
        from: reader.at(e.span().map_or(0, |span| span.start)),
        reason: e.message().to_owned(),
    })?;
    reader.table("", table.get_ref(), config)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn table(&self, section: &str, table: &DeTable<'_>, config: &mut Config) -> Result<(), Error> {
        for (name, value) in table {
            let key = if section.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{section}.{}", name.get_ref())
            };
            let from = self.at(name.span().start);
            match (settings::by_key(&key), value.get_ref()) {
                (Some(setting), value) => {
                    let text = text_of(setting, value).map_err(|reason| Error::Value {
                        key: setting.key,
                        from: from.clone(),
                        reason,
                    })?;
                    setting.put(config, &text, from)?;
                }
                (None, DeValue::Table(inner)) if section.is_empty() => self.table(&key, inner, config)?,
                (None, _) => {
                    return Err(Error::UnknownKey { nearest: settings::nearest(&key), key, from });
                }
            }
        }
        Ok(())
    }

    fn at(&self, byte: usize) -> Source {
        let before = self.text.get(..byte).unwrap_or(self.text);
        Source::File(self.path.to_owned(), before.matches('\n').count() + 1)
    }
}

/// The value as text, where it has the setting's type.
fn text_of(setting: &Setting, value: &DeValue<'_>) -> Result<String, String> {
    match (setting.kind, value) {
        (Kind::Bool, DeValue::Boolean(value)) => Ok(value.to_string()),
        (Kind::Integer, DeValue::Integer(value)) if value.radix() == 10 => Ok(value.as_str().to_owned()),
        (Kind::Text, DeValue::String(value)) => Ok(value.to_string()),
        (Kind::List, DeValue::Array(values)) => {
            let texts = values.iter().map(|value| match value.get_ref() {
                DeValue::String(text) if !text.contains(',') => Ok(text.to_string()),
                _ => Err("must be a list of texts in quotes".to_owned()),
            });
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join(","))
        }
        (Kind::List, _) => Err("must be a list of texts in quotes".to_owned()),
        (Kind::Bool, _) => Err("must be true or false".to_owned()),
        (Kind::Integer, _) => Err("must be a whole number".to_owned()),
        (Kind::Text, _) => Err("must be text in quotes".to_owned()),
    }
}
