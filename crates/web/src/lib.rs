//! What every HTTP door does alike: reading bodies, answering problems.

pub mod body;
pub mod problem;
