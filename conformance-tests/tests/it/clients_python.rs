//! The Python SDK's client: the whole app, over HTTP and stdio, in both eras.
