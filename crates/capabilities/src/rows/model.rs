//! What the data plane knows of a release: its tables with their types and rules, and how people sign in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::Type;
use crate::access::{Operation, Rules};
use crate::auth::{Custom, Provider};
use crate::database::Role;
use crate::functions::{Access, FunctionName, Kind};
use crate::realtime::ChannelRules;
use crate::routes::Routes;
use crate::storage::{self, Bucket};

/// What stands before a bucket's name where it could be a table's.
pub(crate) const BUCKET: &str = "files/";

/// An app, as its data plane sees it. Made once for each release, then only read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct App {
    /// Functions that pages may ask, and who.
    pub functions: BTreeMap<FunctionName, (Kind, Access)>,
    /// Table name in lower case → table.
    pub tables: BTreeMap<String, Arc<TableModel>>,
    /// Bucket name → bucket.
    pub buckets: BTreeMap<String, Arc<Bucket>>,
    /// How people sign in.
    pub auth: AuthSettings,
    /// Its channels.
    pub realtime: ChannelRules,
    /// Its routes.
    pub routes: Routes,
}

impl App {
    /// The table of that name, whatever its case.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Arc<TableModel>> {
        self.tables.get(&name.to_ascii_lowercase())
    }

    /// What rules guard under that name: a table, or the files of a bucket.
    #[must_use]
    pub(crate) fn guarded(&self, name: &str) -> Option<&TableModel> {
        match name.strip_prefix(BUCKET) {
            Some(bucket) => self.buckets.get(bucket).map(|bucket| &bucket.table),
            None => self.table(name).map(|table| &**table),
        }
    }
}

/// How people sign in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthSettings {
    /// The methods that are on; none until listed.
    pub methods: BTreeSet<Method>,
    /// Other origins whose pages may call the app, as browsers write them (`https://example.org`).
    pub origins: BTreeSet<String>,
    /// Who may make an account.
    pub signup: SignUp,
    /// Whether an address must be confirmed before it opens a session.
    pub confirm: Confirm,
    /// Whether people have second factors.
    pub mfa: Mfa,
    /// Who sends texts to phones.
    pub phone: Option<PhoneAdapter>,
    /// Other addresses that links in mails may lead on to.
    pub redirects: Vec<Url>,
    /// What the app is called in mails.
    pub name: Option<String>,
    /// How the sign-in page looks.
    pub theme: Theme,
    /// Those whose word on who people are is taken, by name.
    pub providers: BTreeMap<String, Provider>,
    /// The tokens that the app's own server signs.
    pub custom: Option<Custom>,
}

/// Who sends texts to phones: the app's own adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhoneAdapter {
    /// Where `{to, code, text, app}` is posted, signed as Standard Webhooks says: `https://sms.example.com/send`.
    pub webhook: String,
    /// The name of the secret that it is signed with; `secret_set` sets it.
    pub secret: String,
}

/// How the sign-in page looks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Theme {
    /// The colour of buttons and links: `#14532d`. Where it could not be read it is made lighter or darker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accent: Option<String>,
    /// The path of a picture of the site: `/logo.svg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logo: Option<String>,
}

impl AuthSettings {
    /// Whether an address must be confirmed before it opens a session: where the app says so, and where people sign in
    /// by mail alone, for then an address is as good as a password.
    #[must_use]
    pub fn confirms(&self) -> bool {
        self.confirm == Confirm::First || self.methods.contains(&Method::Otp)
    }
}

/// Who may make an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignUp {
    /// Everybody.
    #[default]
    Open,
    /// Who was invited: auth_user_set with `invite`.
    Invite,
    /// Nobody; who has an account signs in.
    Closed,
}

impl SignUp {
    /// The name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SignUp::Open => "open",
            SignUp::Invite => "invite",
            SignUp::Closed => "closed",
        }
    }
}

/// Whether people have second factors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mfa {
    /// Nobody sets one up; who has one is still asked for it.
    #[default]
    Off,
    /// Whoever likes sets one up, and is asked for it.
    Optional,
    /// A session opens nothing of the app before its user has set one up and shown it.
    Required,
}

impl Mfa {
    /// The name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mfa::Off => "off",
            Mfa::Optional => "optional",
            Mfa::Required => "required",
        }
    }
}

/// When an address has to be confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Confirm {
    /// Whenever its owner likes.
    #[default]
    Later,
    /// Before a session is given.
    First,
}

/// A way to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Without telling anything; can become an account later.
    Anonymous,
    /// With an email address and a password.
    Password,
    /// With a code, or a link, that is mailed to an address.
    Otp,
    /// With a code that the app's own adapter sends to a phone.
    Phone,
    /// With a passkey, which who has an account makes.
    Passkey,
    /// By the word of a provider that `auth.providers` names.
    #[serde(rename = "oauth")]
    OAuth,
    /// By a token that the app's own server signs; `auth.custom`.
    Custom,
}

impl Method {
    /// The name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Anonymous => "anonymous",
            Method::Password => "password",
            Method::Otp => "otp",
            Method::Phone => "phone",
            Method::Passkey => "passkey",
            Method::OAuth => "oauth",
            Method::Custom => "custom",
        }
    }
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableModel {
    /// Its name, as the manifest writes it.
    pub name: String,
    /// All its columns in order, `id` first, `created_at` and `updated_at` last.
    pub columns: Vec<ColumnModel>,
    /// Who may do what.
    pub access: Rules,
    /// Lists of columns whose values together differ from row to row.
    pub unique: Vec<Vec<String>>,
    /// Parts of JSON columns that an index finds: `data.address.city`.
    pub paths: Vec<String>,
    /// Whether its rows are found by words.
    pub searched: bool,
}

impl TableModel {
    /// The column of that name, whatever its case.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ColumnModel> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The columns that answers have, in order.
    pub fn shown(&self) -> impl Iterator<Item = &ColumnModel> + Clone {
        self.columns.iter().filter(|column| !column.hidden)
    }

    /// The column of that name, whatever its case, where it is shown.
    #[must_use]
    pub fn shown_column(&self, name: &str) -> Option<&ColumnModel> {
        self.column(name).filter(|column| !column.hidden)
    }

    /// The lists of columns by whose values a row can be named: those that everybody may know of.
    pub fn names_of_rows(&self) -> impl Iterator<Item = &Vec<String>> {
        self.unique.iter().filter(|names| names.iter().all(|name| self.shown_column(name).is_some()))
    }

    /// In whose name statements on it run beside the data plane.
    pub(crate) fn role(&self) -> Role {
        if self.name == storage::TABLE { Role::Platform } else { Role::Writer }
    }

    /// Whether there is somebody who may do this.
    #[must_use]
    pub fn allows(&self, operation: Operation) -> bool {
        self.access.of(operation).is_some()
    }

    /// Whether its rows have an owner.
    #[must_use]
    pub fn has_owner(&self) -> bool {
        self.columns.iter().any(|column| column.built_in && column.name == "owner")
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnModel {
    /// Its name, as the manifest writes it.
    pub name: String,
    /// Its type.
    pub kind: Type,
    /// Whether every row must have a value.
    pub required: bool,
    /// What it is where none is given.
    pub default: Option<DefaultValue>,
    /// The table whose `id` it holds.
    pub references: Option<String>,
    /// Whether values must differ from row to row.
    pub unique: bool,
    /// Whether every table has it by itself: `id`, `owner`, `created_at`, `updated_at`.
    pub built_in: bool,
    /// Whether nobody is shown it: it is in no answer, and no user writes it or asks for it. Rules may.
    pub hidden: bool,
    /// Whether it keeps the value that the row was made with.
    pub immutable: bool,
    /// What every row must meet, in the words of the manifest.
    pub check: Option<String>,
}

/// What a column is where no value is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultValue {
    /// A constant, as an SQL literal.
    Constant(String),
    /// The time of the insert.
    Now,
    /// A new id.
    NewId,
}
