#include "io/hdf5_driver.hpp"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>

namespace rankwise::io {
namespace {

/// HDF5's own part first: it hands out pointers to that.
struct OpenFile {
    H5FD_t base;
    DriverTarget* target;
    haddr_t end_allocated;  ///< HDF5's "EOA"
    haddr_t end;            ///< bytes in the file ("EOF")
};

OpenFile& open_file(H5FD_t* file) {
    return *reinterpret_cast<OpenFile*>(file);
}
const OpenFile& open_file(const H5FD_t* file) {
    return *reinterpret_cast<const OpenFile*>(file);
}

/// Runs `action` unless an error came before; keeps what it throws.
template <class Action>
void guarded(DriverTarget& target, const Action& action) {
    if (target.error) return;
    try {
        action();
    } catch (...) {
        target.error = std::current_exception();
    }
}

H5FD_t* open(const char* /*name*/, unsigned /*flags*/, hid_t fapl, haddr_t /*maxaddr*/) {
    const auto* info = static_cast<DriverTarget* const*>(H5Pget_driver_info(fapl));
    if (info == nullptr) return nullptr;
    DriverTarget* target = *info;
    std::int64_t size = 0;
    guarded(*target, [&] { size = target->file->size(); });
    if (target->error) return nullptr;
    return &(new OpenFile{{}, target, 0, static_cast<haddr_t>(size)})->base;
}

herr_t close(H5FD_t* file) {
    delete &open_file(file);
    return 0;
}

int compare(const H5FD_t* a, const H5FD_t* b) {
    const auto* left = open_file(a).target;
    const auto* right = open_file(b).target;
    return left == right ? 0 : std::less<>()(left, right) ? -1 : 1;
}

herr_t query(const H5FD_t* /*file*/, unsigned long* flags) {
    if (flags != nullptr) {
        *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA |
                 H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_AGGREGATE_SMALLDATA;
    }
    return 0;
}

haddr_t end_allocated(const H5FD_t* file, H5FD_mem_t /*type*/) {
    return open_file(file).end_allocated;
}

herr_t set_end_allocated(H5FD_t* file, H5FD_mem_t /*type*/, haddr_t address) {
    open_file(file).end_allocated = address;
    return 0;
}

haddr_t end_of_file(const H5FD_t* file, H5FD_mem_t /*type*/) {
    return open_file(file).end;
}

herr_t read(H5FD_t* file, H5FD_mem_t /*type*/, hid_t /*transfer*/, haddr_t address,
            std::size_t size, void* buffer) {
    OpenFile& self = open_file(file);
    const std::span bytes(static_cast<std::byte*>(buffer), size);
    std::size_t done = 0;
    guarded(*self.target, [&] {
        done = static_cast<std::size_t>(
            self.target->file->read_at(static_cast<std::int64_t>(address), bytes));
    });
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(done), bytes.end(), std::byte{0});
    return self.target->error ? -1 : 0;
}

herr_t write(H5FD_t* file, H5FD_mem_t /*type*/, hid_t /*transfer*/, haddr_t address,
             std::size_t size, const void* buffer) {
    OpenFile& self = open_file(file);
    guarded(*self.target, [&] {
        // A block at a time, so that it is hashed while it is in the cache.
        std::span bytes(static_cast<const std::byte*>(buffer), size);
        for (auto offset = static_cast<std::int64_t>(address); !bytes.empty();) {
            const auto left = static_cast<std::size_t>(kChecksumBlock - offset % kChecksumBlock);
            const auto piece = bytes.first(std::min(bytes.size(), left));
            self.target->file->write_at(offset, piece);
            if (self.target->checksum != nullptr) self.target->checksum->wrote(offset, piece);
            offset += static_cast<std::int64_t>(piece.size());
            bytes = bytes.subspan(piece.size());
        }
    });
    self.end = std::max(self.end, address + size);
    return 0;
}

herr_t truncate(H5FD_t* file, hid_t /*transfer*/, hbool_t /*closing*/) {
    OpenFile& self = open_file(file);
    if (self.end == self.end_allocated) return 0;
    guarded(*self.target, [&] {
        const auto size = static_cast<std::int64_t>(self.end_allocated);
        self.target->file->truncate(size);
        if (self.target->checksum != nullptr) self.target->checksum->truncated(size);
    });
    self.end = self.end_allocated;
    return 0;
}

H5FD_class_t make_class() {
    H5FD_class_t driver{};
#if H5_VERSION_GE(1, 13, 0)
    driver.version = H5FD_CLASS_VERSION;
    driver.value = H5_VFD_MAX - 1;
#endif
    driver.name = "rankwise";
    driver.maxaddr = static_cast<haddr_t>(std::numeric_limits<std::int64_t>::max());
    driver.fc_degree = H5F_CLOSE_STRONG;
    driver.fapl_size = sizeof(DriverTarget*);
    driver.open = open;
    driver.close = close;
    driver.cmp = compare;
    driver.query = query;
    driver.get_eoa = end_allocated;
    driver.set_eoa = set_end_allocated;
    driver.get_eof = end_of_file;
    driver.read = read;
    driver.write = write;
    driver.truncate = truncate;
    return driver;
}

}  // namespace

herr_t use_driver(hid_t fapl, DriverTarget* target) {
    static const H5FD_class_t driver = make_class();
    static const hid_t id = H5FDregister(&driver);
    return H5Pset_driver(fapl, id, &target);
}

}  // namespace rankwise::io
