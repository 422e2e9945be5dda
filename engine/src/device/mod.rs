//! Drives and image files: opening, geometry, identity, and the gates in front of destruction.
