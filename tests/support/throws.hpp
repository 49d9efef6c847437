// Errors by type and by what they say.
#pragma once

#include <gtest/gtest.h>

#include <string>

/// `statement` throws `type`, and its message contains `part`.
#define EXPECT_THROW_WITH(statement, type, part)                                               \
    do {                                                                                       \
        try {                                                                                  \
            statement;                                                                         \
            ADD_FAILURE() << #statement " throws nothing; expected " #type " with " << (part); \
        } catch (const type& rankwise_error) {                                                 \
            EXPECT_NE(std::string(rankwise_error.what()).find(part), std::string::npos)        \
                << "message: " << rankwise_error.what() << "\nexpected in it: " << (part);     \
        }                                                                                      \
    } while (false)
