//! The front door: peeks, classifies, picks a worker, hands the connection over or proxies the request.
