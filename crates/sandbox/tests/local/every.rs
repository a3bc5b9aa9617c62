//! What holds with every runner.

/// Runs each of these tests, which take a rig, with every runner that this machine is to have.
macro_rules! on_every_runner {
    ($($name:ident),+ $(,)?) => {
        mod namespaces {
            $(#[tokio::test] async fn $name() { super::$name($crate::rig::rig()).await; })+
        }

        mod gvisor {
            $(#[tokio::test] async fn $name() { super::$name($crate::rig::rig_of_gvisor()).await; })+
        }
    };
}

pub(crate) use on_every_runner;
