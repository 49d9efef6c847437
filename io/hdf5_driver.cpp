#include "io/hdf5_driver.hpp"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include <algorithm>
#include <functional>
#include <future>
#include <limits>
#include <span>

#include "io/direct_buffer.hpp"

namespace rankwise::io {
namespace {

/// Bytes of a file that are written with one call, beginning at a multiple of as many: the system
/// takes large pieces at several times the speed of small ones.
constexpr std::int64_t kStretch = std::int64_t{8} << 20;

/// Writes that follow one another, until they fill a stretch of the file. A stretch is written by a
/// thread while the next is filled and hashed.
class Gathered {
  public:
    explicit Gathered(DriverTarget& target) : target_(target) {}

    void write(std::int64_t offset, std::span<const std::byte> bytes) {
        if (offset != end()) flush();
        while (!bytes.empty()) {
            if (size_ == 0) begin_ = offset;
            const auto piece = bytes.first(
                std::min(bytes.size(), static_cast<std::size_t>(kStretch - offset % kStretch)));
            if (filling_.bytes().empty()) filling_ = DirectBuffer(kStretch);
            std::copy(piece.begin(), piece.end(), filling_.bytes().begin() + size_);
            size_ += std::ssize(piece);
            offset += std::ssize(piece);
            bytes = bytes.subspan(piece.size());
            if (offset % kStretch == 0) out();
        }
    }
    /// All is written when it returns.
    void flush() {
        if (size_ > 0) out();
        wait();
    }

  private:
    [[nodiscard]] std::int64_t end() const { return begin_ + size_; }

    void out() {
        wait();
        const std::int64_t offset = begin_;
        const std::span<const std::byte> bytes =
            filling_.bytes().first(static_cast<std::size_t>(size_));
        begin_ = end();
        size_ = 0;
        if (std::ssize(bytes) < kStretch) {
            target_.file->write_at(offset, bytes);
        } else {
            std::swap(filling_, writing_);
            written_ = std::async(std::launch::async, [file = target_.file, offset, bytes] {
                file->write_through(offset, bytes);
            });
        }
        if (target_.checksum != nullptr) target_.checksum->wrote(offset, bytes);
    }
    void wait() {
        if (written_.valid()) written_.get();
    }

    DriverTarget& target_;
    std::int64_t begin_ = 0;
    std::int64_t size_ = 0;  // bytes from there on in `filling_`
    DirectBuffer filling_, writing_;
    std::future<void> written_;  // last: ends before what it writes
};

/// HDF5's own part first: it hands out pointers to that.
struct OpenFile {
    H5FD_t base;
    DriverTarget* target;
    haddr_t end_allocated;  ///< HDF5's "EOA"
    haddr_t end;            ///< bytes in the file ("EOF")
    Gathered gathered;
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
    return &(new OpenFile{{}, target, 0, static_cast<haddr_t>(size), Gathered(*target)})->base;
}

herr_t close(H5FD_t* file) {
    guarded(*open_file(file).target, [&] { open_file(file).gathered.flush(); });
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
        // No sieve: small pieces would be held back while what follows them is written.
        *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA |
                 H5FD_FEAT_AGGREGATE_SMALLDATA;
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
        self.gathered.flush();
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
        self.gathered.write(static_cast<std::int64_t>(address),
                            std::span(static_cast<const std::byte*>(buffer), size));
    });
    self.end = std::max(self.end, address + size);
    return 0;
}

herr_t truncate(H5FD_t* file, hid_t /*transfer*/, hbool_t /*closing*/) {
    OpenFile& self = open_file(file);
    if (self.end == self.end_allocated) return 0;
    guarded(*self.target, [&] {
        self.gathered.flush();
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
    driver.fapl_size = sizeof(void*);  // use_driver() hands over where the target is
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
