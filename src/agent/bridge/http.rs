//! HTTP targets: reads a stream's requests, has each decided, and makes them anew to the origin. It refuses to know the gateway.

use super::Hop;
use crate::base::code::Code;

/// Serves one stream of HTTP requests to its end. Yields why it was cut, if it was.
pub async fn serve(hop: Hop) -> Option<Code> {
    let Hop { .. } = hop;
    Some(Code::Internal)
}
