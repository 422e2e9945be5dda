//! Sector ciphers over whole slots, key wrapping and key stretching, and the types that hold secrets.
