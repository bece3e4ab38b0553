//! `/health`: the process lives and serves.

use actix_web::HttpResponse;
use actix_web::http::header;

/// Touches nothing else: whoever restarts processes by this answer must not restart them for a fault of the database.
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(serde_json::json!({ "status": "alive" }))
}
