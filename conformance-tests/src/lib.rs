//! What the black-box tests share: the ground they stand on, clients they drive, and models they play.

mod app;
mod app_task;
mod consenting;
mod driver;
mod ground;
mod incoming;
mod liar;
mod live;
mod metrics;
mod model;
mod neighbour;
mod preview;
mod shared;

pub use app::{App, Person, Reply, Session, encoded};
pub use app_task::{Attack, MARK, Scene, Task, Usage};
pub use consenting::{CLAUDE_CODE, Visitor, field, form, hidden, told};
pub use driver::{Driver, Greeting, Said, Target};
pub use ground::{Place, browser, home_beside, steading};
pub use incoming::Incoming;
pub use liar::liar;
pub use live::{Event, Events, Socket};
pub use metrics::Metrics;
pub use model::{Ask, Heard, LAST_WORDS, Model, Wire};
pub use neighbour::Neighbour;
pub use preview::Preview;
pub use shared::Shared;
