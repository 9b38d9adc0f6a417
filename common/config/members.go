package config

import "errors"

// Members are members of a JSON object that the file has as YAML.
type Members map[string]any

// UnmarshalYAML is of package yaml. It makes the maps of YAML those of JSON.
func (m *Members) UnmarshalYAML(read func(any) error) error {
	var all map[string]any
	if err := read(&all); err != nil {
		return err
	}
	for name, value := range all {
		plain, err := asJSON(value)
		if err != nil {
			return err
		}
		all[name] = plain
	}
	*m = all
	return nil
}

func asJSON(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case map[any]any:
		object := make(map[string]any, len(v))
		for key, value := range v {
			name, is := key.(string)
			if !is {
				return nil, errors.New("put the names of members in quotes")
			}
			if object[name], err = asJSON(value); err != nil {
				return nil, err
			}
		}
		return object, nil
	case []any:
		for i := range v {
			if v[i], err = asJSON(v[i]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
