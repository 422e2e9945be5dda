//! Every maximum, with its reason.
