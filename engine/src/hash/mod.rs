//! Hashes: MD5 in lanes, CRC-64/NVME, CRC-32, SHA-256; incremental or many at a time.
