//! Answers in fewer bytes, for browsers that read gzip. A page has no secret that its length could
//! tell to somebody who chooses a part of it: no token, and no code against foreign forms.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};

use crate::live::LiveBody;
use crate::reply::HttpResponse;

/// An answer below this fits into one packet as it is.
const MIN_BYTES: usize = 1200;

/// True if whoever asks reads gzip.
pub(crate) fn reads_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
        name.trim().eq_ignore_ascii_case("gzip") && weight.parse::<f32>().is_ok_and(|it| it > 0.0)
    })
}

/// The same answer, compressed if that is worth it.
pub(crate) fn compressed(response: HttpResponse) -> HttpResponse {
    let (mut head, body) = response.into_parts();
    let bytes = match body {
        LiveBody::Whole(whole) => whole.into_inner().unwrap_or_default(),
        live @ LiveBody::Live(_) => return Response::from_parts(head, live),
    };
    let smaller = if bytes.len() < MIN_BYTES {
        None
    } else {
        gzip(&bytes).ok()
    };
    if smaller.is_some() {
        let gzip = HeaderValue::from_static("gzip");
        head.headers.insert(CONTENT_ENCODING, gzip);
        let vary = HeaderValue::from_static("accept-encoding");
        head.headers.insert(VARY, vary);
    }
    let whole = Full::new(smaller.unwrap_or(bytes));
    Response::from_parts(head, LiveBody::Whole(whole))
}

fn gzip(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(Bytes::from(encoder.finish()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_who_reads_it() {
        let reads = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(text));
            reads_gzip(&headers)
        };
        for good in ["gzip", "br, GZIP;q=0.5", "deflate,gzip; q=1"] {
            assert!(reads(good), "{good}");
        }
        for none in ["", "br", "gzip;q=0", "xgzip", "gzip;q=x"] {
            assert!(!reads(none), "{none}");
        }
    }
}
