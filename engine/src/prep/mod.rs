//! The pipeline that fills a drive: feed, digest, seal, write, finish.
