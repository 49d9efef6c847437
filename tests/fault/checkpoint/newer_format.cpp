// newer_format MANIFEST: makes the file one of the next format, whole in every other way.
#include <fstream>
#include <iterator>
#include <string>

#include "io/manifest.hpp"

int main(int argc, char** argv) {
    using namespace rankwise;
    if (argc != 2) return 2;
    std::ifstream in(argv[1], std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), {}};
    constexpr std::size_t kHeader = 512;
    if (bytes.size() < kHeader) return 2;
    const std::int64_t next = io::kCheckpointFormat + 1;
    const std::string old = fmt::format("\nformat {}\n", io::kCheckpointFormat);
    const std::size_t at = bytes.find(old);
    const std::size_t hash_at = bytes.find(": ", at);
    if (at == std::string::npos || hash_at > kHeader) return 2;
    bytes.replace(at, old.size(), fmt::format("\nformat {}\n", next));
    bytes.replace(hash_at + 2, 32,
                  to_hex(xxh3_128(bytes.data() + kHeader, bytes.size() - kHeader,
                                  static_cast<std::uint64_t>(next))));
    std::ofstream(argv[1], std::ios::binary) << bytes;
}
