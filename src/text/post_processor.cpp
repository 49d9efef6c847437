#include "src/text/post_processor.hpp"

#include <nlohmann/json.hpp>

#include "src/base/error.hpp"

namespace rankwise::text {
namespace {

void add_ids_of(const Json& special_tokens, const std::string& name, std::vector<TokenId>& out,
                std::string_view where) {
    const Json* entry = member(special_tokens, name.c_str());
    require(entry != nullptr, "{}: \"special_tokens\" has no entry \"{}\"", where, name);
    for (const Json& id : array_member(*entry, "ids", where)) out.push_back(int_value(id, where));
}

// "single": the text is the sequence A; special tokens stand before and after it.
Frame read_template(const Json& json, std::string_view where) {
    Frame frame;
    bool behind = false;
    for (const Json& item : array_member(json, "single", where)) {
        if (const Json* sequence = member(item, "Sequence")) {
            const std::string name = string_member(*sequence, "id", where);
            require(name == "A" && !behind, "{}: \"single\" should have the sequence A once",
                    where);
            behind = true;
        } else {
            const std::string name =
                string_member(required_member(item, "SpecialToken", where), "id", where);
            add_ids_of(required_member(json, "special_tokens", where), name,
                       behind ? frame.after : frame.before, where);
        }
    }
    require(behind, "{}: \"single\" should have the sequence A once", where);
    return frame;
}

// Later processors put their ids around what earlier ones made.
void add(const Json& json, Frame& frame, std::string_view where) {
    const std::string type = string_member(json, "type", where);
    if (type == "ByteLevel") return;  // about offsets only
    if (type == "Sequence") {
        for (const Json& each : array_member(json, "processors", where)) add(each, frame, where);
        return;
    }
    require(type == "TemplateProcessing",
            "{}: the kind \"{}\" is not known; known are ByteLevel, TemplateProcessing, Sequence",
            where, type);
    Frame outer = read_template(json, where);
    frame.before.insert(frame.before.begin(), outer.before.begin(), outer.before.end());
    frame.after.insert(frame.after.end(), outer.after.begin(), outer.after.end());
}

}  // namespace

Frame read_post_processor(const Json* json, std::string_view where) {
    Frame frame;
    if (json != nullptr) add(*json, frame, fmt::format("{}: post_processor", where));
    return frame;
}

}  // namespace rankwise::text
