//! What data keys are wrapped by, as a setting.

use super::value::{Kind, Value};

/// What data keys are wrapped by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// A program of the operator's; a key in the data directory where there is none.
    pub command: KeyCommand,
}

/// A program and its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyCommand(pub Vec<String>);

impl Value for KeyCommand {
    const KIND: Kind = Kind::List;

    fn read(text: &str) -> Result<Self, String> {
        let words: Vec<_> = text.split(',').map(|word| word.trim().to_owned()).collect();
        match &words[..] {
            [only] if only.is_empty() => Ok(Self::default()),
            // One that is looked for could be another program tomorrow.
            [program, ..] if program.starts_with('/') => Ok(Self(words)),
            _ => {
                Err("must begin with the whole path of a program, such as \"/usr/local/bin/kms\"".to_owned())
            }
        }
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_as_it_is_shown_and_is_a_whole_path() {
        let read = KeyCommand::read("/usr/local/bin/kms, --key,home").unwrap();
        assert_eq!(read.0, ["/usr/local/bin/kms", "--key", "home"]);
        assert_eq!(KeyCommand::read(&read.show()), Ok(read));
        assert_eq!(KeyCommand::read(""), Ok(KeyCommand::default()));
        for wrong in ["kms", "./kms", ",/usr/bin/kms"] {
            assert!(KeyCommand::read(wrong).unwrap_err().contains("whole path"), "{wrong}");
        }
    }
}
