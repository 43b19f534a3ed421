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

use crate::{Answer, Body, Engine, Protocol};

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
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    R: http_body::Body<Data = Bytes>,
{
    type Response = Response<Either<Body, R>>;
    type Error = S::Error;
    type Future = ServiceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.engine.path_matches(request.uri().path()) {
            ServiceFuture::ours(self.engine.handle(request))
        } else {
            ServiceFuture::inner(self.inner.call(request))
        }
    }
}

/// The answer of an engine, or of the service behind it.
#[derive(Debug)]
pub struct ServiceFuture<F>(Kind<F>);

#[derive(Debug)]
enum Kind<F> {
    Ours(Answer),
    Inner(Pin<Box<F>>),
}

impl<F> ServiceFuture<F> {
    /// The engine's.
    pub fn ours(answer: Answer) -> ServiceFuture<F> {
        ServiceFuture(Kind::Ours(answer))
    }

    /// The service's.
    pub fn inner(answer: F) -> ServiceFuture<F> {
        ServiceFuture(Kind::Inner(Box::pin(answer)))
    }
}

impl<F, R, E> Future for ServiceFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<Either<Body, R>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Kind::Ours(answer) => Pin::new(answer).poll(cx).map(|response| Ok(response.map(Either::Left))),
            Kind::Inner(answer) => answer.as_mut().poll(cx).map_ok(|response| response.map(Either::Right)),
        }
    }
}
