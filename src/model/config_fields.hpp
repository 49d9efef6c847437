// Reading the keys of a config.json, with errors that say which file and key.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "src/base/error.hpp"
#include "src/base/trajectory.hpp"

namespace rankwise::model {

using Json = nlohmann::json;

/// One object of a file, so that errors can say which file and key.
class Fields {
  public:
    Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
        require(object_.is_object(), "{}: expected a JSON object", where_);
    }

    [[nodiscard]] bool has(const char* key) const {
        return object_.contains(key) && !object_.at(key).is_null();
    }
    template <class T>
    [[nodiscard]] T get(const char* key) const {
        require(has(key), "{}: the key \"{}\" is missing", where_, key);
        try {
            return object_.at(key).get<T>();
        } catch (const Json::exception&) {
            throw BadInput(fmt::format("{}: the key \"{}\" has the wrong type: {}", where_, key,
                                       object_.at(key).dump()));
        }
    }
    template <class T>
    [[nodiscard]] T get(const char* key, T fallback) const {
        return has(key) ? get<T>(key) : fallback;
    }
    [[nodiscard]] std::vector<TokenId> ids(const char* key) const {
        if (!has(key)) return {};
        if (object_.at(key).is_array()) return get<std::vector<TokenId>>(key);
        return {get<TokenId>(key)};
    }
    [[nodiscard]] Fields child(const char* key) const {
        return {object_.at(key), fmt::format("{}, \"{}\"", where_, key)};
    }
    [[nodiscard]] const std::string& where() const { return where_; }

  private:
    const Json& object_;
    std::string where_;
};

/// The name of a value in a table of both.
template <class Value, std::size_t kCount>
const char* name_in(const std::array<std::pair<Value, const char*>, kCount>& table, Value wanted) {
    for (const auto& [value, name] : table) {
        if (value == wanted) return name;
    }
    return "unknown";
}

/// The value of a name.
/// @throws BadInput naming `key` and the names that are known.
template <class Value, std::size_t kCount>
Value value_in(const std::array<std::pair<Value, const char*>, kCount>& table,
               const std::string& wanted, const char* key, const std::string& where) {
    std::string known;
    for (const auto& [value, name] : table) {
        if (wanted == name) return value;
        known += known.empty() ? name : fmt::format(", {}", name);
    }
    throw BadInput(fmt::format("{}: unknown {} \"{}\"; known: {}", where, key, wanted, known));
}

}  // namespace rankwise::model
