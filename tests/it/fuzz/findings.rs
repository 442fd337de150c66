//! What was found to be read in two ways, by hand or by the fuzzer: each is tried again in every
//! run.

/// Bytes of a connection to the gate.
pub const REQUESTS: &[&[u8]] = &[
    b"POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n0\r\n\r\n",
    b"POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET /x HTTP/1.1\r\n\r\n",
    b"POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nTransfer-Encoding: chunked\r\n\r\n82 x\r\n0\r\n\r\nPOST /v1/portrait/segment-custom HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nX-Hidden: 1\r\nContent-Length: 0\r\n\r\n\r\n0\r\n\r\n",
    b"POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
    b"POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    b"POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nContent-Length: 5\r\n\r\nhel",
    b"POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nContent-Length: 2\r\n\r\n{}POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n\r\n",
    b"POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nTransfer-Encoding: chunked\r\n\r\n5;\0\r\nhello\r\n0\r\n\r\n",
    b"POST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nTransfer-Encoding: chunked\r\n\r\n2 ;\x0b\r\n{}\r\n0\r\n\r\n",
    b"GET /v1/quota HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nTransfer-Encoding: chunked\r\n\r\n5 x\r\n0\r\n\r\nPOST /v1/portrait/segment HTTP/1.1\r\nHost: a\r\nX-Api-Key: demo-retail-key\r\nContent-Length: 0\r\n\r\n",
];

/// What an upstream answers to one call.
pub const ANSWERS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nno field\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\t\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\x7f",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}more and no line end",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\0\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
];
