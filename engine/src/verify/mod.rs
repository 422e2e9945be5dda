//! The pipeline that checks a drive: read in disk order, open, digest, judge.
