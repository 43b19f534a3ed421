//! The tower service: requests on the engine's path go to the engine, all else to the inner service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Either;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Body, Engine, Protocol};

/// Puts an [`Engine`] before a service.
pub struct EngineLayer<P: Protocol>(Engine<P>);

impl<P: Protocol> EngineLayer<P> {
    /// A layer for `engine`.
    pub fn new(engine: Engine<P>) -> EngineLayer<P> {
        EngineLayer(engine)
    }
}

impl<P: Protocol> Clone for EngineLayer<P> {
    fn clone(&self) -> EngineLayer<P> {
        EngineLayer(self.0.clone())
    }
}

impl<P: Protocol> fmt::Debug for EngineLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EngineLayer").field(&self.0).finish()
    }
}

impl<P: Protocol, S> Layer<S> for EngineLayer<P> {
    type Service = EngineService<P, S>;

    fn layer(&self, inner: S) -> EngineService<P, S> {
        EngineService { engine: self.0.clone(), inner }
    }
}

/// An [`Engine`] before a service.
pub struct EngineService<P: Protocol, S> {
    engine: Engine<P>,
    inner: S,
}

impl<P: Protocol, S: Clone> Clone for EngineService<P, S> {
    fn clone(&self) -> EngineService<P, S> {
        EngineService { engine: self.engine.clone(), inner: self.inner.clone() }
    }
}

impl<P: Protocol, S> fmt::Debug for EngineService<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineService").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl<P, S, B, R> Service<Request<B>> for EngineService<P, S>
where
    P: Protocol,
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    R: http_body::Body<Data = Bytes>,
{
    type Response = Response<Either<Body, R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.engine.path_matches(request.uri().path()) {
            let response = self.engine.handle(request);
            Box::pin(async move { Ok(response.await.map(Either::Left)) })
        } else {
            let response = self.inner.call(request);
            Box::pin(async move { Ok(response.await?.map(Either::Right)) })
        }
    }
}
