// newer_format MANIFEST: makes the file one of the next format, whole in every other way.
#include <xxhash.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    std::ifstream in(argv[1], std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), {}};
    constexpr std::size_t kHeader = 512;
    if (bytes.size() < kHeader) return 2;
    const std::string old = "\nformat 1\n";
    const std::size_t at = bytes.find(old);
    const std::size_t hash_at = bytes.find(": ", at);
    if (at == std::string::npos || hash_at > kHeader) return 2;
    bytes.replace(at, old.size(), "\nformat 2\n");
    const XXH128_hash_t hash =
        XXH3_128bits_withSeed(bytes.data() + kHeader, bytes.size() - kHeader, 2);
    char text[33];
    std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                  static_cast<unsigned long long>(hash.low64));
    bytes.replace(hash_at + 2, 32, text);
    std::ofstream(argv[1], std::ios::binary) << bytes;
}
