//! The TypeScript SDK's clients, 1.x and 2.x: the whole app, over HTTP and stdio.
