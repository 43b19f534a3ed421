//! The snippets of `docs/guide`, compiled as tests.

macro_rules! pages {
    ($($name:ident: $file:literal,)*) => {$(
        #[doc = include_str!(concat!("../../../docs/guide/", $file))]
        pub mod $name {}
    )*};
}

pages! {
    getting_started: "getting-started.md",
    handlers: "handlers.md",
    rooms: "rooms.md",
    acks: "acks.md",
    recovery: "recovery.md",
    scaling: "scaling.md",
    deploying: "deploying.md",
    from_socketioxide: "from-socketioxide.md",
    from_node: "from-node.md",
}
