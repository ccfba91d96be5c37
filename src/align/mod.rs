//! Registration of the template to the frame.
