//! axum's constant 200, the reference that `scripts/bench --peers` holds `GET /status` against (goal G6).
//!
//! Same body size as our `/health`. It prints where it listens and its process id, and serves until it is killed.

use axum::Router;
use axum::routing::get;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = Router::new().route("/health", get(|| async { ([("content-type", "application/json")], r#"{"status":"ok"}"#) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
