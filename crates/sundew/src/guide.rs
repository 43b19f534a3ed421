//! The snippets of `docs/guide`, compiled as tests.

macro_rules! pages {
    ($($(#[$when:meta])? $name:ident: $file:literal,)*) => {$(
        $(#[$when])?
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
    #[cfg(feature = "webtransport")]
    webtransport: "webtransport.md",
    from_socketioxide: "from-socketioxide.md",
    from_node: "from-node.md",
}
