//! What the loop asks of an app, and of memory.

use super::*;

#[tokio::test]
async fn a_connection_that_waits_is_small() {
    let (_client, server) = UnixStream::pair().unwrap();
    let (_leaving, leaving) = watch::channel(false);
    let serving = Serving::of_test(Arc::default(), leaving);
    let http = serving.http(Conn::unix(server, Origin::Accepted), None, Small);
    assert!(size_of_val(&http) <= 1024, "{} bytes, of which malloc keeps no spare", size_of_val(&http));
}

/// An app whose answers are small, as those of sessions are.
#[derive(Clone)]
struct Small;

impl Service<Request<RequestBody>> for Small {
    type Response = Response<AxumBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
        std::future::ready(Ok(Response::new(AxumBody::empty()))).boxed()
    }
}

/// A service that may be called as often as it has said it is ready, by all its clones together.
#[derive(Clone)]
struct Permits {
    free: Arc<AtomicUsize>,
    promised: Arc<AtomicUsize>,
    app: Small,
}

impl Permits {
    fn new() -> Permits {
        Permits { free: Arc::new(AtomicUsize::new(1)), promised: Arc::default(), app: Small }
    }
}

/// Holds a permit from `poll_ready` to the end of the call, as tower's `ConcurrencyLimit` does; a clone has none.
struct Limited {
    permits: Permits,
    held: bool,
}

impl Clone for Limited {
    fn clone(&self) -> Limited {
        Limited { permits: self.permits.clone(), held: false }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if self.held {
            self.permits.free.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Service<Request<RequestBody>> for Limited {
    type Response = Response<AxumBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if !self.held {
            let free = self
                .permits
                .free
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
            if free.is_err() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.held = true;
            self.permits.promised.fetch_add(1, Ordering::Relaxed);
        }
        self.permits.app.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        assert!(std::mem::take(&mut self.held), "not ready");
        let free = self.permits.free.clone();
        let answer = self.permits.app.call(request);
        Box::pin(async move {
            let answer = answer.await;
            free.fetch_add(1, Ordering::Relaxed);
            answer
        })
    }
}

/// A connection that has been handed to hyper holds nothing that others wait for.
#[tokio::test]
async fn what_an_app_has_promised_to_one_connection_is_not_kept_from_the_others() {
    let permits = Permits::new();
    let mut clients = Vec::new();
    for path in ["/page", "/page", "/io/x", "/io/x", "/page"] {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (leaving, told) = watch::channel(false);
        let serving = Serving::of_test(Arc::new(vec![Arc::new(Io)]), told);
        let app = Limited { permits: permits.clone(), held: false };
        tokio::spawn(serving.run(Conn::unix(server, Origin::Accepted), None, app));
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 512];
        let count = tokio::time::timeout(SOON, client.read(&mut answer)).await.expect("no answer").unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 "), "{path}");
        // They all stay.
        clients.push((client, leaving));
    }
    assert!(permits.promised.load(Ordering::Relaxed) >= 5);
}

/// An app that takes no requests any more.
#[derive(Clone)]
struct Broken;

impl Service<Request<RequestBody>> for Broken {
    type Response = Response<AxumBody>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("no more".into()))
    }

    fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
        panic!("it was not ready");
    }
}

/// By hyper as by the loop: there is nobody to answer, so the connection ends.
#[tokio::test]
async fn an_app_that_will_never_be_ready_ends_the_connection() {
    for path in ["/page", "/io/x"] {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (_leaving, leaving) = watch::channel(false);
        let serving = Serving::of_test(Arc::new(vec![Arc::new(Io)]), leaving);
        let task = tokio::spawn(serving.run(Conn::unix(server, Origin::Accepted), None, Broken));
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(SOON, client.read_to_string(&mut answer)).await.expect("still open").unwrap();
        assert_eq!(answer, "", "{path}");
        task.await.unwrap();
    }
}
