// HDF5's view of a File: a virtual file driver, so that every byte HDF5 moves goes through the
// FileSystem. For io/hdf5_file.cpp alone.
#pragma once

#include <hdf5.h>

#include <exception>

#include "io/checksum.hpp"
#include "io/fs.hpp"

namespace rankwise::io {

/// What the driver works on. Outlives the HDF5 file.
struct DriverTarget {
    File* file = nullptr;
    FileChecksum* checksum = nullptr;  ///< told of writes, if any
    /// The first error. HDF5 is written in C, so nothing is thrown through it; and a file of which
    /// a write failed cannot be closed by HDF5 1.10 if it is told so. So writes after an error do
    /// nothing and "succeed", and the owner looks here.
    std::exception_ptr error;
};

/// Makes files opened with access list `fapl` work on `target`. @return negative on failure, as
/// HDF5 does.
herr_t use_driver(hid_t fapl, DriverTarget* target);

}  // namespace rankwise::io
